// Functions that are built for several widths of vectors; which one runs is picked when the library
// is loaded. Without fused multiply-adds (-ffp-contract=off) all of them give the same bits.
#pragma once

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define EDGECAP_STEP_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EDGECAP_STEP_CLONES
#endif

// Before a loop over registers: unrolled too late, GCC 12 keeps their array in memory.
#define EDGECAP_UNROLL _Pragma("GCC unroll 16")

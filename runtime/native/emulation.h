// CUDA on the CPU, for tests: what the .cu files of this folder use of CUDA, for any C++17
// compiler. See emulation_fibres.h for how the threads run, launch.h for launches. Arithmetic is
// IEEE and not contracted when compiled with -ffp-contract=off; fmaf and fma round once, as on a
// GPU.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "emulation_fibres.h"
#include "emulation_runtime.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

#define threadIdx (::edgecap::emulation::machine.current->thread)
#define blockIdx (::edgecap::emulation::machine.block_index)
#define blockDim (::edgecap::emulation::machine.block)
#define gridDim (::edgecap::emulation::machine.grid)
constexpr int warpSize = 32;

// --- vector types -------------------------------------------------------------------------------
#define EDGECAP_VECTOR(name, type, bytes2, bytes4)                 \
  struct __align__(bytes2) name##2 { type x, y; };                 \
  struct __align__(bytes4) name##4 { type x, y, z, w; };           \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; } \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EDGECAP_VECTOR(float, float, 8, 16)
EDGECAP_VECTOR(int, int, 8, 16)
EDGECAP_VECTOR(uint, unsigned, 8, 16)
EDGECAP_VECTOR(char, signed char, 2, 4)
#undef EDGECAP_VECTOR

namespace edgecap::emulation {

template <typename To, typename From>
To BitCast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

inline float FromHalf(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, rest = bits & 0x7fffu;
  if (rest >= 0x7c00u) return BitCast<float>(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  if (rest >= 0x400u) return BitCast<float>(sign | ((rest << 13) + 0x38000000u));
  return std::copysign(static_cast<float>(rest) * 0x1p-24f, BitCast<float>(sign));
}

inline uint16_t ToHalf(float value) {
  uint32_t u = BitCast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>(u >> 16 & 0x8000u);
  u &= 0x7fffffffu;
  if (u > 0x7f800000u) return sign | 0x7fffu;
  if (u >= 0x47800000u) return sign | 0x7c00u;
  if (u < 0x38800000u) {  // subnormal: adding 0.5 rounds where a half does
    return sign | static_cast<uint16_t>(BitCast<uint32_t>(BitCast<float>(u) + 0.5f) - 0x3f000000u);
  }
  return sign | static_cast<uint16_t>((u - 0x38000000u + 0xfffu + (u >> 13 & 1u)) >> 13);
}

inline uint16_t ToBfloat(float value) {
  const uint32_t u = BitCast<uint32_t>(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return static_cast<uint16_t>((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

}  // namespace edgecap::emulation

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
struct __align__(4) __half2 {
  __half x, y;
};
struct __align__(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline float __half2float(__half h) { return edgecap::emulation::FromHalf(h.bits); }
inline __half __float2half_rn(float f) { return {edgecap::emulation::ToHalf(f)}; }
inline __half __float2half(float f) { return __float2half_rn(f); }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half h) { return h.bits; }
inline float2 __half22float2(__half2 h) { return {__half2float(h.x), __half2float(h.y)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half(x), __float2half(y)}; }
inline float __bfloat162float(__nv_bfloat16 b) {
  return edgecap::emulation::BitCast<float>(static_cast<uint32_t>(b.bits) << 16);
}
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return {edgecap::emulation::ToBfloat(f)}; }
inline __nv_bfloat16 __float2bfloat16(float f) { return __float2bfloat16_rn(f); }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 b) { return b.bits; }

// --- arithmetic ---------------------------------------------------------------------------------
#define EDGECAP_MIN_MAX(type)                               \
  inline type min(type a, type b) { return b < a ? b : a; } \
  inline type max(type a, type b) { return a < b ? b : a; }
EDGECAP_MIN_MAX(int)
EDGECAP_MIN_MAX(unsigned)
EDGECAP_MIN_MAX(long)
EDGECAP_MIN_MAX(unsigned long)
EDGECAP_MIN_MAX(long long)
EDGECAP_MIN_MAX(unsigned long long)
#undef EDGECAP_MIN_MAX
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __expf(float a) { return std::exp(a); }
inline float __logf(float a) { return std::log(a); }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline int __float_as_int(float a) { return edgecap::emulation::BitCast<int>(a); }
inline unsigned __float_as_uint(float a) { return edgecap::emulation::BitCast<unsigned>(a); }
inline float __int_as_float(int a) { return edgecap::emulation::BitCast<float>(a); }
inline float __uint_as_float(unsigned a) { return edgecap::emulation::BitCast<float>(a); }
inline double __longlong_as_double(long long a) { return edgecap::emulation::BitCast<double>(a); }
inline int __float2int_rn(float a) { return static_cast<int>(std::nearbyint(a)); }
inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __clz(int a) { return a == 0 ? 32 : __builtin_clz(static_cast<unsigned>(a)); }

// --- memory -------------------------------------------------------------------------------------
template <typename T>
T __ldg(const T* address) {
  return *address;
}
template <typename T>
T __ldcs(const T* address) {
  return *address;
}
template <typename T>
T __ldcg(const T* address) {
  return *address;
}
template <typename T>
void __stcg(T* address, T value) {
  *address = value;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) {}

template <typename T>
using Same = std::common_type_t<T>;  // keeps the argument out of the deduction of T
template <typename T>
T atomicExch(T* address, Same<T> value) {
  const T old = *address;
  *address = value;
  return old;
}
template <typename T>
T atomicAdd(T* address, Same<T> value) {
  return atomicExch(address, static_cast<T>(*address + value));
}
template <typename T>
T atomicSub(T* address, Same<T> value) {
  return atomicExch(address, static_cast<T>(*address - value));
}
template <typename T>
T atomicMax(T* address, Same<T> value) {
  return atomicExch(address, *address < value ? value : *address);
}
template <typename T>
T atomicMin(T* address, Same<T> value) {
  return atomicExch(address, value < *address ? value : *address);
}
template <typename T>
T atomicOr(T* address, Same<T> value) {
  return atomicExch(address, static_cast<T>(*address | value));
}
template <typename T>
T atomicAnd(T* address, Same<T> value) {
  return atomicExch(address, static_cast<T>(*address & value));
}
template <typename T>
T atomicCAS(T* address, Same<T> compare, Same<T> value) {
  return atomicExch(address, *address == compare ? value : *address);
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return atomicExch(address, *address >= limit ? 0u : *address + 1u);
}

// --- threads that work together -----------------------------------------------------------------
inline void __syncthreads() { edgecap::emulation::machine.Barrier(false); }
inline int __syncthreads_count(int predicate) {
  return edgecap::emulation::machine.Barrier(predicate != 0);
}
inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) > 0; }
inline int __syncthreads_and(int predicate) { return __syncthreads_count(predicate == 0) == 0; }

namespace edgecap::emulation {

inline int Lane() { return machine.current->lane; }

template <typename T>
T Shuffle(unsigned mask, T value, int source, int width) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  const int first = Lane() & ~(width - 1);
  if (source < first || source >= first + width) source = Lane();  // beyond: one's own value
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = machine.Exchange(mask, bits, source).result;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace edgecap::emulation

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int first = edgecap::emulation::Lane() & ~(width - 1);
  return edgecap::emulation::Shuffle(mask, value, first + (source & (width - 1)), width);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int source = edgecap::emulation::Lane() - static_cast<int>(delta);
  return edgecap::emulation::Shuffle(mask, value, source, width);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int source = edgecap::emulation::Lane() + static_cast<int>(delta);
  return edgecap::emulation::Shuffle(mask, value, source, width);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  return edgecap::emulation::Shuffle(mask, value, edgecap::emulation::Lane() ^ bits, width);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  using namespace edgecap::emulation;
  return machine.Exchange(mask, predicate != 0, Lane()).votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}
inline void __syncwarp(unsigned mask = 0xffffffffu) { __ballot_sync(mask, 0); }

// Whole-number products for x86-64: AVX-512 VNNI, AVX-512 and AVX2.
//
// All keep weights as bytes 128 too large, as VNNI multiplies unsigned by signed bytes; 128 times
// the sum of the inputs is taken off again.
#include "step_clones.h"
#include "step_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

namespace edgecap {
namespace {

#define EDGECAP_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define EDGECAP_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))
#define EDGECAP_AVX2 __attribute__((target("avx2")))

inline int32_t Four(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, sizeof(four));
  return four;
}

// kMore : the weights are signed and the inputs get 128 more, so that `sums` are what an output
// begins with; else the other way round.
template <int kRows, int kBlocks, bool kMore>
EDGECAP_VNNI void VnniTile(const uint8_t* weights, int groups, const int8_t* x, int stride,
                           const int32_t* sums, int32_t* result) {
  __m512i total[kRows][kBlocks];
  EDGECAP_UNROLL
  for (int r = 0; r < kRows; ++r) {
    EDGECAP_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      total[r][b] =
          kMore ? _mm512_loadu_si512(sums + b * kLanes) : _mm512_set1_epi32(-128 * sums[r]);
    }
  }
  const size_t block = static_cast<size_t>(groups) * 64;
  for (int g = 0; g < groups; ++g) {
    __m512i w[kBlocks];
    EDGECAP_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      w[b] = _mm512_load_si512(weights + b * block + static_cast<size_t>(g) * 64);
    }
    EDGECAP_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int32_t four = Four(x + static_cast<size_t>(r) * stride + g * 4);
      const __m512i value =
          _mm512_set1_epi32(kMore ? four ^ static_cast<int32_t>(0x80808080u) : four);
      EDGECAP_UNROLL
      for (int b = 0; b < kBlocks; ++b) {
        total[r][b] = kMore ? _mm512_dpbusd_epi32(total[r][b], value, w[b])
                            : _mm512_dpbusd_epi32(total[r][b], w[b], value);
      }
    }
  }
  EDGECAP_UNROLL
  for (int r = 0; r < kRows; ++r) {
    EDGECAP_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      _mm512_storeu_si512(result + r * kTileOutputs + b * kLanes, total[r][b]);
    }
  }
}

EDGECAP_VNNI int32_t VnniSum(const int8_t* x, int count) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i total = _mm512_setzero_si512();
  int i = 0;
  for (; i + 64 <= count; i += 64) {
    total = _mm512_dpbusd_epi32(total, ones, _mm512_loadu_si512(x + i));
  }
  if (i < count) {
    const __mmask64 rest = (uint64_t{1} << (count - i)) - 1;
    total = _mm512_dpbusd_epi32(total, ones, _mm512_maskz_loadu_epi8(rest, x + i));
  }
  alignas(64) int32_t lanes[kLanes];
  _mm512_store_si512(lanes, total);
  int32_t sum = 0;
  for (int32_t lane : lanes) sum += lane;
  return sum;
}

// Four outputs of four inputs a quarter of 16 bytes; pairs of products are summed in 32 bits, the
// two pairs of an output at the end.
template <int kRows>
EDGECAP_AVX512 void Avx512Block(const uint8_t* weights, int groups, const int8_t* x, int stride,
                                const int32_t* sums, int32_t* result) {
  __m512i total[kRows][2];
  EDGECAP_UNROLL
  for (int r = 0; r < kRows; ++r) total[r][0] = total[r][1] = _mm512_setzero_si512();
  for (int g = 0; g < groups; ++g) {
    const __m256i* from = reinterpret_cast<const __m256i*>(weights + static_cast<size_t>(g) * 64);
    const __m512i low = _mm512_cvtepu8_epi16(_mm256_load_si256(from));
    const __m512i high = _mm512_cvtepu8_epi16(_mm256_load_si256(from + 1));
    EDGECAP_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const __m128i bytes = _mm_cvtsi32_si128(Four(x + static_cast<size_t>(r) * stride + g * 4));
      const __m512i value = _mm512_set1_epi64(_mm_cvtsi128_si64(_mm_cvtepi8_epi16(bytes)));
      total[r][0] = _mm512_add_epi32(total[r][0], _mm512_madd_epi16(low, value));
      total[r][1] = _mm512_add_epi32(total[r][1], _mm512_madd_epi16(high, value));
    }
  }
  EDGECAP_UNROLL
  for (int r = 0; r < kRows; ++r) {
    alignas(64) int32_t pairs[2 * kLanes];
    _mm512_store_si512(pairs, total[r][0]);
    _mm512_store_si512(pairs + kLanes, total[r][1]);
    for (int lane = 0; lane < kLanes; ++lane) {
      result[r * kTileOutputs + lane] = pairs[2 * lane] + pairs[2 * lane + 1] - 128 * sums[r];
    }
  }
}

template <int kRows>
EDGECAP_AVX2 void Avx2Block(const uint8_t* weights, int groups, const int8_t* x, int stride,
                            const int32_t* sums, int32_t* result) {
  __m256i total[kRows][4];
  EDGECAP_UNROLL
  for (int r = 0; r < kRows; ++r) {
    EDGECAP_UNROLL
    for (int part = 0; part < 4; ++part) total[r][part] = _mm256_setzero_si256();
  }
  for (int g = 0; g < groups; ++g) {
    const __m128i* from = reinterpret_cast<const __m128i*>(weights + static_cast<size_t>(g) * 64);
    __m256i w[4];
    EDGECAP_UNROLL
    for (int part = 0; part < 4; ++part)
      w[part] = _mm256_cvtepu8_epi16(_mm_load_si128(from + part));
    EDGECAP_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const __m128i bytes = _mm_cvtsi32_si128(Four(x + static_cast<size_t>(r) * stride + g * 4));
      const __m256i value = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(bytes));
      EDGECAP_UNROLL
      for (int part = 0; part < 4; ++part) {
        total[r][part] = _mm256_add_epi32(total[r][part], _mm256_madd_epi16(w[part], value));
      }
    }
  }
  EDGECAP_UNROLL
  for (int r = 0; r < kRows; ++r) {
    alignas(32) int32_t pairs[2 * kLanes];
    EDGECAP_UNROLL
    for (int part = 0; part < 4; ++part) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(pairs + 8 * part), total[r][part]);
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      result[r * kTileOutputs + lane] = pairs[2 * lane] + pairs[2 * lane + 1] - 128 * sums[r];
    }
  }
}

template <int kRows, bool kMore>
void VnniBlocks(const uint8_t* weights, int groups, int blocks, const int8_t* x, int stride,
                const int32_t* sums, int32_t* result) {
  switch (blocks) {
    case 1:
      return VnniTile<kRows, 1, kMore>(weights, groups, x, stride, sums, result);
    case 2:
      return VnniTile<kRows, 2, kMore>(weights, groups, x, stride, sums, result);
    case 3:
      return VnniTile<kRows, 3, kMore>(weights, groups, x, stride, sums, result);
    default:
      return VnniTile<kRows, kTileBlocks, kMore>(weights, groups, x, stride, sums, result);
  }
}

template <bool kMore>
void VnniRows(const uint8_t* weights, int groups, int blocks, const int8_t* x, int stride,
              const int32_t* sums, int rows, int32_t* result) {
  switch (rows) {
    case 1:
      return VnniBlocks<1, kMore>(weights, groups, blocks, x, stride, sums, result);
    case 2:
      return VnniBlocks<2, kMore>(weights, groups, blocks, x, stride, sums, result);
    case 3:
      return VnniBlocks<3, kMore>(weights, groups, blocks, x, stride, sums, result);
    default:
      return VnniBlocks<4, kMore>(weights, groups, blocks, x, stride, sums, result);
  }
}

void Vnni(const uint8_t* weights, int groups, int blocks, const int8_t* x, int stride,
          const int32_t* sums, int rows, int32_t* result) {
  VnniRows<false>(weights, groups, blocks, x, stride, sums, rows, result);
}

void VnniMore(const uint8_t* weights, int groups, int blocks, const int8_t* x, int stride,
              const int32_t* firsts, int rows, int32_t* result) {
  VnniRows<true>(weights, groups, blocks, x, stride, firsts, rows, result);
}

void Avx512(const uint8_t* weights, int groups, int blocks, const int8_t* x, int stride,
            const int32_t* sums, int rows, int32_t* result) {
  for (int b = 0; b < blocks; ++b) {
    const uint8_t* from = weights + static_cast<size_t>(b) * groups * 64;
    int32_t* to = result + b * kLanes;
    if (rows == kTileRows) {
      Avx512Block<kTileRows>(from, groups, x, stride, sums, to);
      continue;
    }
    for (int r = 0; r < rows; ++r) {
      Avx512Block<1>(from, groups, x + static_cast<size_t>(r) * stride, stride, sums + r,
                     to + r * kTileOutputs);
    }
  }
}

void Avx2(const uint8_t* weights, int groups, int blocks, const int8_t* x, int stride,
          const int32_t* sums, int rows, int32_t* result) {
  for (int b = 0; b < blocks; ++b) {
    const uint8_t* from = weights + static_cast<size_t>(b) * groups * 64;
    int r = 0;
    for (; r + 2 <= rows; r += 2) {  // 8 sums of 8: what fits in 16 registers
      Avx2Block<2>(from, groups, x + static_cast<size_t>(r) * stride, stride, sums + r,
                   result + r * kTileOutputs + b * kLanes);
    }
    if (r < rows) {
      Avx2Block<1>(from, groups, x + static_cast<size_t>(r) * stride, stride, sums + r,
                   result + r * kTileOutputs + b * kLanes);
    }
  }
}

}  // namespace

void AddProcessorKernels(std::vector<WholeKernel>* kernels) {
  __builtin_cpu_init();
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl");
  if (wide && __builtin_cpu_supports("avx512vnni"))
    kernels->push_back({"avx512vnni", true, Vnni, VnniSum, VnniMore});
  if (wide) kernels->push_back({"avx512", true, Avx512, SumWhole, nullptr});
  if (__builtin_cpu_supports("avx2")) kernels->push_back({"avx2", true, Avx2, SumWhole, nullptr});
}

}  // namespace edgecap
#endif

// Products of R = 1..64 rows with a matrix, and what stands before and after them in a decoder:
// embedding, layer norm, bias, activation, residual, recurrent cells, key and value slots.
//
// Such a product is bound by reading its matrix: 16-byte loads, eight lanes along a row of it and
// two rows a lane, so that a warp gives eight outputs; inputs are widened once and lie in shared
// memory. Several warps share a row of the matrix where there are few of them for the GPU. Rows
// beyond a tile of RT read the matrix again, from the cache.
#pragma once

#include "decoder_types.cuh"

namespace edgecap::gpu {

constexpr int kTile = 8;            // outputs of a warp
constexpr int kInputFloats = 8192;  // of shared memory for inputs; half of it beside logits

enum class To : int { kBuffer = 0, kQkv = 1, kLstm = 2, kGru = 3, kLogits = 4 };

// One product of a step. K is the sum of its segments' widths, N its outputs.
template <typename W>
struct Product {
  StepView step;
  Words<W> words;
  Segment segment[kMaxSegments];
  int segments, inputs;  // inputs: K
  // Layer norm of the input; gamma null without one.
  const float* gamma;
  const float* beta;
  float eps;
  // Where block 0 leaves the input for later launches, [R, K]; null without.
  float* keep;
  bool keep_normed;
  const W* weight;      // [N, stride]
  const float* scale;   // [N], int8 alone
  const float* bias;    // [N] or null
  int outputs, stride;  // stride: multiple of kRowBytes / sizeof(W)
  int slices;           // warps that share a tile: 1, 2, 4 or 8
  int chunk;            // inputs that lie in shared memory at once, a multiple as stride is
  Activation activation;
  const float* residual;  // [R, N], added before the activation; null without
  bool residual_words;    // the embedding is the residual
  To to;
  float* out;     // [R, N]; of kQkv the query [R, N / 3]; of a cell its h [2, R, N / 4]
  float* memory;  // of an LSTM its c [2, R, N / 4]
  void* keys;     // of kQkv: [B, T, K, N / 3]
  void* values;
  bool cache_half;  // keys and values are halves, else floats
};

// A row of the input before its norm.
template <typename W>
__device__ __forceinline__ float InputAt(const Product<W>& p, int row, int k) {
  int s = 0;
  while (k >= p.segment[s].width) k -= p.segment[s++].width;
  const Segment& segment = p.segment[s];
  const int width = segment.width;
  switch (segment.from) {
    case From::kWords:
      return WordAt(p.words, p.step, row, k);
    case From::kBuffer:
      return segment.data[row * width + k];
    default: {
      const int rows = p.step.batch * p.step.beams;
      const bool parent = segment.from == From::kParentState;
      const int side = (p.step.control->position + (parent ? 0 : 1)) & 1;
      const int source = parent ? p.step.parents[row] : row;
      return segment.data[(side * rows + source) * width + k];
    }
  }
}

// Mean and 1 / standard deviation of every row, a warp each.
template <typename W>
__device__ void Measure(const Product<W>& p, float2* stats) {
  const int lane = threadIdx.x % 32;
  const int rows = p.step.batch * p.step.beams;
  for (int row = threadIdx.x / 32; row < rows; row += kStepWarps) {
    float sum = 0.0f;
    for (int k = lane; k < p.inputs; k += 32) sum += InputAt(p, row, k);
    const float mean = WarpSum(sum) / p.inputs;
    float squares = 0.0f;
    for (int k = lane; k < p.inputs; k += 32) {
      const float d = InputAt(p, row, k) - mean;
      squares += d * d;
    }
    const float rstd = rsqrtf(WarpSum(squares) / p.inputs + p.eps);
    if (lane == 0) stats[row] = make_float2(mean, rstd);
  }
}

// Inputs [from, from + length) of RT rows to shared memory, zeros beyond their ends. Lane j of
// eight reads V values at a time: they lie in planes of four so that its loads meet no bank twice.
template <typename W, int RT>
__device__ void FetchInputs(const Product<W>& p, int first_row, int from, int length,
                            const float2* stats, float* x) {
  constexpr int kVector = Load<W>::kVector;
  const int rows = p.step.batch * p.step.beams;
  for (int r = 0; r < RT; ++r) {
    const int row = first_row + r;
    for (int i = threadIdx.x; i < length; i += kStepThreads) {
      const int k = from + i;
      float value = 0.0f;
      if (row < rows && k < p.inputs) {
        value = InputAt(p, row, k);
        const float raw = value;
        if (p.gamma != nullptr) {
          value = (value - stats[row].x) * stats[row].y * p.gamma[k] + p.beta[k];
        }
        if (p.keep != nullptr && blockIdx.x == 0) {
          p.keep[row * p.inputs + k] = p.keep_normed ? value : raw;
        }
      }
      const int inside = i % (8 * kVector);
      const int plane = inside % kVector / 4;
      const int at = i - inside + plane * 32 + inside / kVector * 4 + inside % 4;
      x[r * p.chunk + at] = value;
    }
  }
}

// Sums v[0..N) over the eight lanes of a group, each lane ending with a share of them: v[0] is
// value `index` (and v[1] the next one where N is above 8, and so on).
template <int N>
__device__ __forceinline__ int ReduceGroup(float (&v)[N], int lane) {
  int index = 0;
  int left = N;
#pragma unroll
  for (int mask = 4; mask > 0; mask >>= 1) {
    if (left > 1) {
      const int half = left / 2;
      const bool upper = (lane & mask) != 0;
#pragma unroll
      for (int i = 0; i < N / 2; ++i) {
        if (i >= half) break;
        const float sent = upper ? v[i] : v[i + half];
        const float kept = upper ? v[i + half] : v[i];
        v[i] = kept + __shfl_xor_sync(kFullWarp, sent, mask);
      }
      index += upper ? half : 0;
      left = half;
    } else {
      v[0] += __shfl_xor_sync(kFullWarp, v[0], mask);
    }
  }
  return index;
}

struct ProductShared {
  float* x;       // [RT, chunk]
  float* sums;    // [slices, channels, RT]: 64 * RT floats
  float2* stats;  // [64]
};

template <int RT>
__device__ __forceinline__ ProductShared Divide(float* shared) {
  ProductShared s;
  s.stats = reinterpret_cast<float2*>(shared);
  s.sums = shared + 2 * kMaxRows;
  s.x = s.sums + kStepWarps * kTile * RT;
  return s;
}

inline size_t ProductSharedBytes(int row_tile, int chunk) {
  return sizeof(float) * (2 * kMaxRows + kStepWarps * kTile * row_tile + row_tile * chunk);
}

// Outputs [first, first + 64 / slices) of rows [first_row, first_row + RT), left in shared.sums.
// `fetched` says that the inputs of these rows are in shared memory already. Begins and ends with
// a barrier.
template <typename W, int RT>
__device__ void Multiply(const Product<W>& p, int first, int first_row, bool fetched,
                         const ProductShared& shared) {
  constexpr int kVector = Load<W>::kVector;
  constexpr int kStride = 8 * kVector;  // weights a group takes at once
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int group = lane / 8, j = lane % 8;
  const int slice = warp % p.slices;
  const int channels = kStepWarps * kTile / p.slices;
  const int own = warp / p.slices * kTile + group * 2;  // of the block's channels
  const W* rows[2];
#pragma unroll
  for (int c = 0; c < 2; ++c) {
    const int channel = min(first + own + c, p.outputs - 1);
    rows[c] = p.weight + static_cast<size_t>(channel) * p.stride + j * kVector;
  }
  float sums[2 * RT];
#pragma unroll
  for (int i = 0; i < 2 * RT; ++i) sums[i] = 0.0f;

  for (int from = 0; from < p.stride; from += p.chunk) {
    const int length = min(p.chunk, p.stride - from);
    __syncthreads();
    if (!fetched) {
      FetchInputs<W, RT>(p, first_row, from, length, shared.stats, shared.x);
      __syncthreads();
    }
    const int steps = length / kStride;
    const int end = steps * (slice + 1) / p.slices;
#pragma unroll(RT* kVector > 64 ? 1 : RT * kVector > 32 ? 2 : 4)
    for (int i = steps * slice / p.slices; i < end; ++i) {
      float w[2][kVector];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const W* at = rows[c] + from + i * kStride;
        Load<W>::Widen(__ldg(reinterpret_cast<const uint4*>(at)), w[c]);
      }
#pragma unroll
      for (int plane = 0; plane < kVector / 4; ++plane) {
        const float* x = shared.x + i * kStride + plane * 32 + j * 4;
#pragma unroll
        for (int r = 0; r < RT; ++r) {
          const float4 in = *reinterpret_cast<const float4*>(x + r * p.chunk);
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            float sum = sums[c * RT + r];
            sum += w[c][4 * plane] * in.x;
            sum += w[c][4 * plane + 1] * in.y;
            sum += w[c][4 * plane + 2] * in.z;
            sum += w[c][4 * plane + 3] * in.w;
            sums[c * RT + r] = sum;
          }
        }
      }
    }
  }

  const int index = ReduceGroup(sums, lane);
  constexpr int kShare = 2 * RT >= 8 ? 2 * RT / 8 : 1;
  // With fewer than eight sums some lanes hold the same one: the first of them writes.
  static_assert(RT == 1 || RT >= 4, "other tiles leave a sum in two lanes");
  const bool writes = RT >= 4 || (j & 3) == 0;
  if (writes) {
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const int c = (index + i) / RT, r = (index + i) % RT;
      shared.sums[(slice * channels + own + c) * RT + r] = sums[i];
    }
  }
  __syncthreads();
}

// Output `first + c` of row r of the tile, before bias and residual.
template <typename W, int RT>
__device__ __forceinline__ float Total(const Product<W>& p, const float* sums, int first, int c,
                                       int r) {
  const int channels = kStepWarps * kTile / p.slices;
  float total = 0.0f;
  for (int s = 0; s < p.slices; ++s) total += sums[(s * channels + c) * RT + r];
  if (p.scale != nullptr) total *= p.scale[first + c];
  return total + (p.bias != nullptr ? p.bias[first + c] : 0.0f);
}

template <typename W>
__device__ __forceinline__ void StoreQkv(const Product<W>& p, int row, int n, float value) {
  const int width = p.outputs / 3;
  if (n < width) {
    p.out[row * width + n] = value;
    return;
  }
  const int image = row / p.step.beams, beam = row % p.step.beams;
  const size_t slot =
      (static_cast<size_t>(image) * p.step.positions + p.step.control->position) * p.step.beams +
      beam;
  void* cache = n < 2 * width ? p.keys : p.values;
  const size_t at = slot * width + n % width;
  if (p.cache_half) {
    Narrow(static_cast<__half*>(cache) + at, value);
  } else {
    static_cast<float*>(cache)[at] = value;
  }
}

// Four neighbouring outputs are one unit's gates: i, f, g, o of an LSTM; r, z and the input's and
// the state's part of n of a GRU.
template <typename W, int RT>
__device__ void FinishCell(const Product<W>& p, const float* sums, int first, int first_row) {
  const int channels = kStepWarps * kTile / p.slices;
  const int rows = p.step.batch * p.step.beams, hidden = p.outputs / 4;
  const int side = p.step.control->position & 1;
  for (int i = threadIdx.x; i < channels / 4 * RT; i += kStepThreads) {
    const int c = i / RT * 4, r = i % RT, row = first_row + r, unit = (first + c) / 4;
    if (row >= rows || unit >= hidden) continue;
    float gate[4];
    for (int g = 0; g < 4; ++g) gate[g] = Total<W, RT>(p, sums, first, c + g, r);
    const int before = (side * rows + p.step.parents[row]) * hidden + unit;
    const int after = ((side ^ 1) * rows + row) * hidden + unit;
    if (p.to == To::kLstm) {
      const float cell = Sigmoid(gate[1]) * p.memory[before] + Sigmoid(gate[0]) * tanhf(gate[2]);
      p.memory[after] = cell;
      p.out[after] = Sigmoid(gate[3]) * tanhf(cell);
    } else {
      const float candidate = tanhf(gate[2] + Sigmoid(gate[0]) * gate[3]);
      p.out[after] = candidate + Sigmoid(gate[1]) * (p.out[before] - candidate);
    }
  }
}

template <typename W, int RT>
__device__ void FinishRows(const Product<W>& p, const float* sums, int first, int first_row) {
  const int channels = kStepWarps * kTile / p.slices;
  const int rows = p.step.batch * p.step.beams;
  for (int i = threadIdx.x; i < channels * RT; i += kStepThreads) {
    const int c = i % channels, r = i / channels, row = first_row + r, n = first + c;
    if (row >= rows || n >= p.outputs) continue;
    float value = Total<W, RT>(p, sums, first, c, r);
    if (p.residual != nullptr) value += p.residual[row * p.outputs + n];
    if (p.residual_words) value += WordAt(p.words, p.step, row, n);
    value = Activate(p.activation, value);
    if (p.to == To::kQkv) {
      StoreQkv(p, row, n, value);
    } else {
      p.out[row * p.outputs + n] = value;
    }
  }
}

// Grid: one block for each 64 / slices outputs.
template <typename W, int RT>
__global__ void __launch_bounds__(kStepThreads, 2) ProductKernel(Product<W> p) {
  if (!p.step.control->keep_going) return;
  const ProductShared shared = Divide<RT>(DynamicShared<float>());
  const int first = blockIdx.x * (kStepWarps * kTile / p.slices);
  if (p.gamma != nullptr) Measure(p, shared.stats);
  for (int row = 0; row < p.step.batch * p.step.beams; row += RT) {
    Multiply<W, RT>(p, first, row, false, shared);
    if (p.to == To::kLstm || p.to == To::kGru) {
      FinishCell<W, RT>(p, shared.sums, first, row);
    } else {
      FinishRows<W, RT>(p, shared.sums, first, row);
    }
  }
}

}  // namespace edgecap::gpu

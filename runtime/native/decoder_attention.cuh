// Attention of one step. A row sees the picture's memory (cross-attention, or a prefix), its own
// past, or both. Its past is read where it was written: `origin` says which beam's slot holds the
// token of each step, so that nothing moves when beams change parents. Memory is never tiled: the
// rows of a picture share a block.
#pragma once

#include "decoder_types.cuh"

namespace edgecap::gpu {

constexpr int kAttentionThreads = 128;
constexpr int kAttentionRows = 4;  // rows of a picture that share a block at most

// d = heads * depth. C is how keys and values are kept.
template <typename C>
struct Attention {
  StepView step;
  const float* query;      // [R, d]
  float* out;              // [R, d]
  const C* memory_keys;    // [B, heads, N, depth], null without memory
  const C* memory_values;  // [B, heads, N, depth]
  const C* keys;           // [B, T, K, d], null where its own past is not seen
  const C* values;
  float scale;
  int memory;  // N
  int heads, depth;
};

// q . key for each of G queries [G, depth] in shared memory.
template <typename C, int G>
__device__ __forceinline__ void Dots(const C* key, const float* query, int depth, bool whole,
                                     float (&dot)[G]) {
  constexpr int kVector = Load<C>::kVector;
#pragma unroll
  for (int g = 0; g < G; ++g) dot[g] = 0.0f;
  if (whole) {
    for (int k = 0; k < depth; k += kVector) {
      float v[kVector];
      Load<C>::Widen(*reinterpret_cast<const uint4*>(key + k), v);
#pragma unroll
      for (int g = 0; g < G; ++g) {
#pragma unroll
        for (int e = 0; e < kVector; ++e) dot[g] += v[e] * query[g * depth + k + e];
      }
    }
    return;
  }
  for (int k = 0; k < depth; ++k) {
    const float v = Wide(key[k]);
#pragma unroll
    for (int g = 0; g < G; ++g) dot[g] += v * query[g * depth + k];
  }
}

// Shared floats: queries [G, depth], scores [G, memory + T], parts of sums.
inline size_t AttentionSharedBytes(int group, int depth, int memory, int positions) {
  const int parts = depth < kAttentionThreads ? kAttentionThreads / depth : 1;
  return sizeof(float) * group * (depth + memory + positions + parts * depth);
}

// Grid: heads, ceil(K / G), B.
template <typename C, int G>
__global__ void __launch_bounds__(kAttentionThreads, 4) AttentionKernel(Attention<C> a) {
  if (!a.step.control->keep_going) return;
  const int head = blockIdx.x, first = blockIdx.y * G, image = blockIdx.z;
  const int beams = a.step.beams, depth = a.depth, width = a.heads * depth;
  const int rows = min(G, beams - first), base = image * beams + first;
  const int position = a.step.control->position;
  const int past = a.keys != nullptr ? position + 1 : 0;  // its own token counts
  const int seen = a.memory + past, room = a.memory + a.step.positions;
  const bool whole = depth % Load<C>::kVector == 0;
  float* query = DynamicShared<float>();
  float* scores = query + G * depth;
  float* parts = scores + G * room;
  const size_t memory_at = (static_cast<size_t>(image) * a.heads + head) * a.memory * depth;

  for (int i = threadIdx.x; i < G * depth; i += kAttentionThreads) {
    const int g = i / depth;
    query[i] = g < rows ? a.query[(base + g) * width + head * depth + i % depth] * a.scale : 0.0f;
  }
  __syncthreads();

  // Slot (s, k') of the past of row g; of the running step its own.
  const auto slot = [&](int g, int s) {
    const int beam = s == position ? first + g : a.step.origin[(base + g) * a.step.positions + s];
    return ((static_cast<size_t>(image) * a.step.positions + s) * beams + beam) * width +
           head * depth;
  };
  for (int n = threadIdx.x; n < a.memory; n += kAttentionThreads) {
    float dot[G];
    Dots<C, G>(a.memory_keys + memory_at + static_cast<size_t>(n) * depth, query, depth, whole,
               dot);
#pragma unroll
    for (int g = 0; g < G; ++g) scores[g * room + n] = dot[g];
  }
  for (int i = threadIdx.x; i < rows * past; i += kAttentionThreads) {
    const int g = i / past, s = i % past;
    float dot[1];
    Dots<C, 1>(a.keys + slot(g, s), query + g * depth, depth, whole, dot);
    scores[g * room + a.memory + s] = dot[0];
  }
  __syncthreads();

  const int lane = threadIdx.x % 32;
  for (int g = threadIdx.x / 32; g < rows; g += kAttentionThreads / 32) {
    float* row = scores + g * room;
    float largest = -INFINITY, sum = 0.0f;
    for (int s = lane; s < seen; s += 32) largest = fmaxf(largest, row[s]);
    largest = WarpMax(largest);
    for (int s = lane; s < seen; s += 32) {
      row[s] = expf(row[s] - largest);
      sum += row[s];
    }
    const float share = 1.0f / WarpSum(sum);
    for (int s = lane; s < seen; s += 32) row[s] *= share;
  }
  __syncthreads();

  const int many = depth < kAttentionThreads ? kAttentionThreads / depth : 1;
  for (int i = threadIdx.x; i < many * depth; i += kAttentionThreads) {
    const int part = i / depth, k = i % depth;
    float sum[G];
#pragma unroll
    for (int g = 0; g < G; ++g) sum[g] = 0.0f;
    const C* column = a.memory_values + memory_at + k;
#pragma unroll 4
    for (int n = part; n < a.memory; n += many) {
      const float v = Wide(column[static_cast<size_t>(n) * depth]);
#pragma unroll
      for (int g = 0; g < G; ++g) {
        if (g < rows) sum[g] += scores[g * room + n] * v;
      }
    }
    for (int s = part; s < past; s += many) {
#pragma unroll
      for (int g = 0; g < G; ++g) {
        if (g < rows) sum[g] += scores[g * room + a.memory + s] * Wide(a.values[slot(g, s) + k]);
      }
    }
#pragma unroll
    for (int g = 0; g < G; ++g) parts[(part * G + g) * depth + k] = sum[g];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < rows * depth; i += kAttentionThreads) {
    const int g = i / depth, k = i % depth;
    float sum = 0.0f;
    for (int part = 0; part < many; ++part) sum += parts[(part * G + g) * depth + k];
    a.out[(base + g) * width + head * depth + k] = sum;
  }
}

// Additive attention (Bahdanau et al. 2015) with a gate, as Show, Attend and Tell has it:
// context = sigmoid(gate) * sum_n softmax_n(score . tanh(query + scored[n])) annotation[n].
template <typename C>
struct AdditiveAttention {
  StepView step;
  const float* query;         // [R, A + 1]; the last value is the gate
  float* out;                 // [R, D]
  const C* annotation;        // [B, N, D]
  const C* scored;            // [B, N, A]
  const float* score;         // [A]
  int places, width, scores;  // N, D, A
};

inline size_t AdditiveSharedBytes(int places, int scores) {
  return sizeof(float) * (places + scores);
}

// Grid: R.
template <typename C>
__global__ void __launch_bounds__(kStepThreads, 2) AdditiveKernel(AdditiveAttention<C> a) {
  if (!a.step.control->keep_going) return;
  const int row = blockIdx.x, image = row / a.step.beams;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float* shares = DynamicShared<float>();
  float* query = shares + a.places;
  const float* given = a.query + row * (a.scores + 1);
  for (int i = threadIdx.x; i < a.scores; i += kStepThreads) query[i] = given[i];
  __syncthreads();
  for (int n = warp; n < a.places; n += kStepWarps) {
    const C* scored = a.scored + (static_cast<size_t>(image) * a.places + n) * a.scores;
    float sum = 0.0f;
    for (int i = lane; i < a.scores; i += 32) {
      sum += a.score[i] * tanhf(query[i] + Wide(scored[i]));
    }
    sum = WarpSum(sum);
    if (lane == 0) shares[n] = sum;
  }
  __syncthreads();
  if (warp == 0) {
    float largest = -INFINITY, sum = 0.0f;
    for (int n = lane; n < a.places; n += 32) largest = fmaxf(largest, shares[n]);
    largest = WarpMax(largest);
    for (int n = lane; n < a.places; n += 32) {
      shares[n] = expf(shares[n] - largest);
      sum += shares[n];
    }
    const float share = Sigmoid(given[a.scores]) / WarpSum(sum);
    for (int n = lane; n < a.places; n += 32) shares[n] *= share;
  }
  __syncthreads();
  for (int k = threadIdx.x; k < a.width; k += kStepThreads) {
    const C* column = a.annotation + static_cast<size_t>(image) * a.places * a.width + k;
    float sum = 0.0f;
#pragma unroll 4
    for (int n = 0; n < a.places; ++n) {
      sum += shares[n] * Wide(column[static_cast<size_t>(n) * a.width]);
    }
    a.out[row * a.width + k] = sum;
  }
}

// How a picture's memory lies as the encoder gives it; kernels read [B, heads, N, depth].
enum class Layout : int {
  kSame = 0,  // as it is kept
  kKeys = 1,  // [B, heads, depth, N]
  kRows = 2,  // [B, N, heads * depth]
};

// Grid: any; every value of [B, heads, N, depth] once.
template <typename C>
__global__ void __launch_bounds__(kStepThreads, 2)
    ArrangeMemoryKernel(const float* in, C* out, Layout layout, int heads, int places, int depth,
                        int count) {
  for (int i = blockIdx.x * kStepThreads + threadIdx.x; i < count; i += gridDim.x * kStepThreads) {
    const int k = i % depth, n = i / depth % places, head = i / (depth * places) % heads;
    const int image = i / (depth * places * heads);
    int from = i;
    if (layout == Layout::kKeys) from = ((image * heads + head) * depth + k) * places + n;
    if (layout == Layout::kRows) from = ((image * places + n) * heads + head) * depth + k;
    Narrow(out + i, in[from]);
  }
}

// The first state of every row: a picture's, [B, width] to side 0 of [2, R, width].
__global__ void __launch_bounds__(kStepThreads, 2)
    TileStateKernel(const float* in, float* out, int beams, int width, int count) {
  for (int i = blockIdx.x * kStepThreads + threadIdx.x; i < count; i += gridDim.x * kStepThreads) {
    out[i] = in[i / width / beams * width + i % width];
  }
}

// What an encoder gave in half precision, as the kernels above read it.
__global__ void __launch_bounds__(kStepThreads, 2)
    WidenKernel(const __half* in, float* out, int count) {
  for (int i = blockIdx.x * kStepThreads + threadIdx.x; i < count; i += gridDim.x * kStepThreads) {
    out[i] = __half2float(in[i]);
  }
}

}  // namespace edgecap::gpu

// Everything of one kind of decode (pictures, beams, lengths): its memory on the device, laid out
// once.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "decoder_api.h"
#include "decoder_head.cuh"
#include "decoder_search.cuh"

namespace edgecap::gpu {

inline size_t WeightBytes(int precision) {
  return precision == EDGECAP_WEIGHTS_F32 ? 4 : precision == EDGECAP_WEIGHTS_F16 ? 2 : 1;
}
inline int Stride(int precision, int inputs) {
  const int unit = static_cast<int>(kRowBytes / WeightBytes(precision));
  return (inputs + unit - 1) / unit * unit;
}
inline int RowTile(int rows) { return rows == 1 ? 1 : rows <= 4 ? 4 : rows <= 8 ? 8 : 16; }

// A decoder's description with its arrays on the device.
struct Description {
  EdgecapDecoderSpec spec;
  std::vector<EdgecapOperation> operations;
  std::vector<EdgecapMemory> memories;
  std::vector<int> buffers, states, caches;
  int processors = 1;

  size_t KeptBytes() const { return spec.precision == EDGECAP_WEIGHTS_F32 ? 4 : 2; }
  static size_t Count(const EdgecapMemory& m) {
    return static_cast<size_t>(m.heads) * m.places * m.depth;
  }
};

// Two searches with equal keys have equal launches and equal memory.
struct PlanKey {
  BeamShape shape;
  double length_penalty;
  std::vector<int> suppressed;

  bool operator==(const PlanKey& other) const {
    return std::memcmp(&shape, &other.shape, sizeof(shape)) == 0 &&
           length_penalty == other.length_penalty && suppressed == other.suppressed;
  }
};

// Tokens of a part of the vocabulary. A part's logits of all rows lie in shared memory; beyond that
// there are a few blocks for each multiprocessor, fewer where there are many of them to merge.
inline int TokensPerPart(int vocab, int rows, int processors) {
  constexpr int kPass = kStepWarps * kTile;
  const int blocks = processors * (processors < 32 ? 4 : 2);
  const int wanted = ((vocab + blocks - 1) / blocks + kPass - 1) / kPass * kPass;
  const int most = std::max(kPass, kHeadFloats / rows / kPass * kPass);
  return std::min(wanted, most);
}

struct Plan {
  PlanKey key;
  const Description* about = nullptr;
  int part = 0;  // tokens a block of the head
  size_t bytes = 0, kept_bytes = 0, staged_bytes = 0;
  unsigned char* device = nullptr;
  unsigned char* host = nullptr;  // pinned: what goes up, then what comes back
  BeamView beams;
  int* stop = nullptr;  // on the device; see edgecap_decoder_stop
  std::vector<float*> buffers, states;
  std::vector<void*> keys, values;
  std::vector<void*> memories;                      // as kernels read them
  std::vector<float*> staged_memory, staged_carry;  // as the encoder gave them
  std::vector<size_t> host_memory, host_carry;      // offsets in `host`
  unsigned char* outcome = nullptr;
  size_t host_outcome = 0, host_bytes = 0;
  int loop = 0;  // see edgecap_decoder_describe
  void* graphs[3] = {nullptr, nullptr, nullptr};

  const BeamShape& shape() const { return key.shape; }
  int rows() const { return key.shape.batch * key.shape.beams; }

  // Lays everything out from `base`; with base 0 only the sizes mean something.
  void Arrange(uintptr_t base) {
    const size_t batch = shape().batch, kept = about->KeptBytes();
    uintptr_t at = base;
    const auto take = [&at](size_t size) {
      void* found = reinterpret_cast<void*>(at);
      at += (size + 255) & ~static_cast<uintptr_t>(255);
      return found;
    };
    size_t state = 0;
    beams = gpu::Arrange(shape(), base, &state);
    take(state);
    stop = static_cast<int*>(take(sizeof(int)));
    beams.stop = stop;
    buffers.clear(), states.clear(), keys.clear(), values.clear(), memories.clear();
    staged_memory.clear(), staged_carry.clear(), host_memory.clear(), host_carry.clear();
    const auto floats = [&](size_t count) { return static_cast<float*>(take(count * 4)); };
    for (const int width : about->buffers) buffers.push_back(floats(size_t(rows()) * width));
    for (const int width : about->states) states.push_back(floats(size_t(2) * rows() * width));
    for (const int width : about->caches) {
      const size_t size = batch * shape().positions * shape().beams * width * kept;
      keys.push_back(take(size));
      values.push_back(take(size));
    }
    host_bytes = 0;
    const auto stage = [&](std::vector<float*>& on_device, std::vector<size_t>& on_host,
                           size_t count) {
      on_device.push_back(floats(count));
      on_host.push_back(host_bytes);
      host_bytes += (count * 4 + 255) & ~size_t(255);
    };
    for (const EdgecapMemory& memory : about->memories) {
      const size_t count = batch * Description::Count(memory);
      stage(staged_memory, host_memory, count);
      // The first words are kept as they come.
      memories.push_back(memory.layout == EDGECAP_FIRST ? staged_memory.back()
                                                        : take(count * kept));
    }
    for (const int width : about->states) stage(staged_carry, host_carry, batch * width);
    outcome = static_cast<unsigned char*>(take(OutcomeBytes(shape())));
    host_outcome = host_bytes;
    host_bytes += OutcomeBytes(shape()) + sizeof(BeamControl);
    bytes = at - base;
  }
};

}  // namespace edgecap::gpu

// The launches of a caption: what comes before the first step, a step, what comes after the last.
// Each operation of the description is one launch.
#pragma once

#include "decoder_attention.cuh"
#include "decoder_plan.cuh"

namespace edgecap::gpu {

// Blocks of kStepThreads for `count` values, each of which may take several.
inline dim3 Blocks(int count) {
  return dim3(static_cast<unsigned>(std::min(1024, (count + kStepThreads - 1) / kStepThreads)));
}

// The launches of a decoder whose weights are W and whose caches are C.
template <typename W, typename C>
class Launches {
 public:
  Launches(const Plan& plan, cudaStream_t stream) : plan_(plan), d_(*plan.about), stream_(stream) {}

  // Memory and state of the pictures as the kernels read them, and the beams' first state.
  cudaError_t Begin() {
    const int batch = plan_.shape().batch;
    for (size_t i = 0; i < d_.memories.size(); ++i) {
      const EdgecapMemory& m = d_.memories[i];
      if (m.layout == EDGECAP_FIRST) continue;
      const int count = static_cast<int>(batch * Description::Count(m));
      Queue(ArrangeMemoryKernel<C>, Blocks(count), 0, plan_.staged_memory[i],
            static_cast<C*>(plan_.memories[i]), static_cast<Layout>(m.layout), m.heads, m.places,
            m.depth, count);
    }
    for (size_t i = 0; i < d_.states.size(); ++i) {
      const int count = plan_.rows() * d_.states[i];
      Queue(TileStateKernel, Blocks(count), 0, plan_.staged_carry[i], plan_.states[i],
            plan_.shape().beams, d_.states[i], count);
    }
    Keep(Launch(BeginSearchKernel, dim3(4), dim3(kSearchThreads), 0, stream_, plan_.beams));
    return error_;
  }

  cudaError_t Step(LoopHandle loop) {
    for (const EdgecapOperation& op : d_.operations) {
      if (op.kind == EDGECAP_PRODUCT) {
        Multiply(op, loop);
      } else if (op.kind == EDGECAP_ATTENTION) {
        Attend(op);
      } else {
        AttendAdditively(op);
      }
    }
    return error_;
  }

  cudaError_t End() {
    const int blocks = (plan_.rows() + kSearchThreads - 1) / kSearchThreads;
    Keep(Launch(EndSearchKernel, dim3(blocks), dim3(kSearchThreads), 0, stream_, plan_.beams,
                plan_.outcome));
    return error_;
  }

  int count() const { return count_; }

 private:
  void Keep(cudaError_t error) {
    ++count_;
    if (error_ == cudaSuccess) error_ = error;
  }

  template <typename... Parameters, typename... Arguments>
  void Queue(void (*kernel)(Parameters...), dim3 grid, size_t shared, Arguments... arguments) {
    Keep(Launch(kernel, grid, dim3(kStepThreads), shared, stream_, arguments...));
  }

  StepView View() const {
    const BeamView& v = plan_.beams;
    return {v.tokens,      v.parents,     v.control,        v.origin,
            v.shape.batch, v.shape.beams, v.shape.positions};
  }

  float* Buffer(int index) const { return index < 0 ? nullptr : plan_.buffers[index]; }

  Product<W> Describe(const EdgecapOperation& op, int room) const {
    const EdgecapDecoderSpec& s = d_.spec;
    Product<W> p{};
    p.step = View();
    p.words = {static_cast<const W*>(s.words),
               s.word_scale,
               s.place_table,
               First(),
               s.vocab,
               s.word_width,
               Stride(s.precision, s.word_width),
               s.place_offset,
               s.places};
    p.segments = op.segments;
    for (int i = 0; i < op.segments; ++i) {
      const EdgecapSegment& given = op.segment[i];
      const From from = static_cast<From>(given.from);
      const float* data = from == From::kWords    ? nullptr
                          : from == From::kBuffer ? plan_.buffers[given.index]
                                                  : plan_.states[given.index];
      p.segment[i] = {from, given.width, data};
      p.inputs += given.width;
    }
    p.gamma = op.gamma;
    p.beta = op.beta;
    p.eps = op.eps;
    p.keep = Buffer(op.keep);
    p.keep_normed = op.keep_normed != 0;
    p.weight = static_cast<const W*>(op.weight);
    p.scale = op.scale;
    p.bias = op.bias;
    p.outputs = op.outputs;
    p.stride = Stride(s.precision, p.inputs);
    const int tile = RowTile(plan_.rows());
    const int unit = static_cast<int>(kRowBytes / sizeof(W));
    p.chunk = std::min(p.stride, std::max(unit, room / tile / unit * unit));
    p.slices = op.to == EDGECAP_TO_LOGITS ? 1 : Slices(op.outputs, p.stride / unit);
    p.activation = static_cast<Activation>(op.activation);
    p.residual = op.residual >= 0 ? Buffer(op.residual) : nullptr;
    p.residual_words = op.residual == EDGECAP_RESIDUAL_WORDS;
    p.to = static_cast<To>(op.to);
    if (p.to == To::kLstm || p.to == To::kGru) {
      p.out = plan_.states[op.out];
      p.memory = p.to == To::kLstm ? plan_.states[op.state] : nullptr;
    } else {
      p.out = Buffer(op.out);
    }
    if (p.to == To::kQkv) {
      p.keys = plan_.keys[op.cache];
      p.values = plan_.values[op.cache];
      p.cache_half = sizeof(C) == 2;
    }
    return p;
  }

  // Warps that share a tile of outputs: more where the tiles alone leave multiprocessors idle, but
  // two cache lines of a row for each at least.
  int Slices(int outputs, int lines) const {
    const int tiles = (outputs + kTile - 1) / kTile;
    int slices = 1;
    while (slices < kStepWarps && tiles * slices < d_.processors * 16 && lines / slices >= 4) {
      slices *= 2;
    }
    return slices;
  }

  const float* First() const {
    for (size_t i = 0; i < d_.memories.size(); ++i) {
      if (d_.memories[i].layout == EDGECAP_FIRST) return plan_.staged_memory[i];
    }
    return nullptr;
  }

  void Multiply(const EdgecapOperation& op, LoopHandle loop) {
    switch (RowTile(plan_.rows())) {
      case 1:
        return MultiplyRows<1>(op, loop);
      case 4:
        return MultiplyRows<4>(op, loop);
      case 8:
        return MultiplyRows<8>(op, loop);
      default:
        return MultiplyRows<16>(op, loop);
    }
  }

  template <int RT>
  void MultiplyRows(const EdgecapOperation& op, LoopHandle loop) {
    if (op.to != EDGECAP_TO_LOGITS) {
      const Product<W> p = Describe(op, kInputFloats);
      const int channels = kStepWarps * kTile / p.slices;
      Queue(ProductKernel<W, RT>, dim3((p.outputs + channels - 1) / channels),
            ProductSharedBytes(RT, p.chunk), p);
      return;
    }
    const Product<W> p = Describe(op, kHeadFloats);
    const int limit = plan_.shape().limit;
    const int floats = static_cast<int>(HeadInputFloats(RT, p.chunk, limit));
    Queue(HeadKernel<W, RT>, dim3(plan_.shape().parts),
          HeadSharedBytes(RT, p.chunk, limit, plan_.rows(), plan_.part), p, plan_.beams, plan_.part,
          floats, loop);
    if (plan_.shape().batch > 1) {
      Queue(SelectKernel, dim3(plan_.shape().batch), sizeof(int) * kStepWarps * (limit + 1),
            plan_.beams, loop);
    }
  }

  void Attend(const EdgecapOperation& op) {
    const int width = op.cache >= 0 ? d_.caches[op.cache]
                                    : d_.memories[op.keys].heads * d_.memories[op.keys].depth;
    Attention<C> a{};
    a.step = View();
    a.query = Buffer(op.query);
    a.out = Buffer(op.out);
    a.scale = op.product_scale;
    a.heads = op.heads;
    a.depth = width / op.heads;
    if (op.keys >= 0) {
      a.memory_keys = static_cast<const C*>(plan_.memories[op.keys]);
      a.memory_values = static_cast<const C*>(plan_.memories[op.values]);
      a.memory = d_.memories[op.keys].places;
    }
    if (op.cache >= 0) {
      a.keys = static_cast<const C*>(plan_.keys[op.cache]);
      a.values = static_cast<const C*>(plan_.values[op.cache]);
    }
    const int beams = plan_.shape().beams;
    if (op.keys < 0 || beams == 1) return AttendRows<1>(a);
    if (beams == 2) return AttendRows<2>(a);
    AttendRows<kAttentionRows>(a);
  }

  template <int G>
  void AttendRows(const Attention<C>& a) {
    const BeamShape& s = plan_.shape();
    const dim3 grid(a.heads, (s.beams + G - 1) / G, s.batch);
    Keep(Launch(AttentionKernel<C, G>, grid, dim3(kAttentionThreads),
                AttentionSharedBytes(G, a.depth, a.memory, s.positions), stream_, a));
  }

  void AttendAdditively(const EdgecapOperation& op) {
    const EdgecapMemory &annotation = d_.memories[op.keys], &scored = d_.memories[op.values];
    const AdditiveAttention<C> a{View(),
                                 Buffer(op.query),
                                 Buffer(op.out),
                                 static_cast<const C*>(plan_.memories[op.keys]),
                                 static_cast<const C*>(plan_.memories[op.values]),
                                 op.score,
                                 annotation.places,
                                 annotation.depth,
                                 scored.depth};
    Queue(AdditiveKernel<C>, dim3(plan_.rows()), AdditiveSharedBytes(a.places, a.scores), a);
  }

  const Plan& plan_;
  const Description& d_;
  cudaStream_t stream_;
  cudaError_t error_ = cudaSuccess;
  int count_ = 0;
};

}  // namespace edgecap::gpu

// Whether a decoder's description holds together: every index, width and array that the kernels
// will rely on. Pure host code.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "decoder_api.h"

namespace edgecap::gpu {

class SpecCheck {
 public:
  explicit SpecCheck(const EdgecapDecoderSpec& spec) : s_(spec) {}

  // Empty where everything is in order, else what is not.
  std::string Run() {
    Require(s_.abi == EDGECAP_DECODER_ABI, "the description is of another version of the library");
    if (!error_.empty()) return error_;
    Require(s_.precision >= EDGECAP_WEIGHTS_F32 && s_.precision <= EDGECAP_WEIGHTS_I8,
            "unknown precision");
    Require(s_.vocab >= 2 && s_.vocab <= 262144, "the vocabulary must have 2 to 262144 words");
    Require(s_.word_width >= 1 && s_.positions >= 1 && s_.words != nullptr, "no words");
    Require(s_.precision != EDGECAP_WEIGHTS_I8 || s_.word_scale != nullptr,
            "int8 words have no scale");
    Require(s_.place_table == nullptr || (s_.places >= 1 && s_.place_offset >= 0), "no places");
    Require(s_.buffers >= 0 && s_.states >= 0 && s_.caches >= 0 && s_.memories >= 0 &&
                s_.operations >= 1,
            "negative counts");
    if (!error_.empty()) return error_;
    Require(s_.place_table == nullptr || s_.positions + s_.place_offset <= s_.places,
            "the table of places is shorter than the longest caption");
    Positive(s_.buffer_width, s_.buffers);
    Positive(s_.state_width, s_.states);
    Positive(s_.cache_width, s_.caches);
    int firsts = 0;
    for (int i = 0; i < s_.memories; ++i) {
      const EdgecapMemory& m = s_.memory[i];
      Require(m.heads >= 1 && m.places >= 1 && m.depth >= 1 && m.layout >= EDGECAP_SAME &&
                  m.layout <= EDGECAP_FIRST,
              "a memory has no size or an unknown layout");
      if (m.layout != EDGECAP_FIRST) continue;
      ++firsts;
      Require(m.depth == s_.word_width, "the first words are not as wide as the others");
    }
    Require(firsts <= 1, "more than one memory of first words");
    int heads = 0;
    for (int i = 0; i < s_.operations && error_.empty(); ++i) {
      where_ = i;
      const EdgecapOperation& op = s_.operation[i];
      if (op.kind == EDGECAP_PRODUCT) {
        Product(op);
        heads += op.to == EDGECAP_TO_LOGITS;
        Require(op.to != EDGECAP_TO_LOGITS || i + 1 == s_.operations, "logits are not the last");
      } else if (op.kind == EDGECAP_ATTENTION) {
        Attention(op);
      } else if (op.kind == EDGECAP_ADDITIVE) {
        Additive(op);
      } else {
        Require(false, "an unknown kind");
      }
    }
    Require(heads == 1, "no logits");
    return error_;
  }

 private:
  void Require(bool holds, const char* text) {
    if (holds || !error_.empty()) return;
    error_ = where_ < 0 ? text : "operation " + std::to_string(where_) + ": " + text;
  }

  void Positive(const int32_t* widths, int count) {
    Require(count == 0 || widths != nullptr, "widths are missing");
    for (int i = 0; error_.empty() && i < count; ++i) Require(widths[i] >= 1, "a width of nothing");
  }

  static int At(const int32_t* widths, int count, int index) {
    return index >= 0 && index < count ? widths[index] : -1;
  }
  int Buffer(int index) const { return At(s_.buffer_width, s_.buffers, index); }
  int State(int index) const { return At(s_.state_width, s_.states, index); }
  int Cache(int index) const { return At(s_.cache_width, s_.caches, index); }

  void Product(const EdgecapOperation& op) {
    Require(op.segments >= 1 && op.segments <= 3, "1 to 3 parts make an input");
    if (!error_.empty()) return;
    int inputs = 0;
    for (int i = 0; error_.empty() && i < op.segments; ++i) {
      const EdgecapSegment& part = op.segment[i];
      const int width = part.from == EDGECAP_FROM_WORDS    ? s_.word_width
                        : part.from == EDGECAP_FROM_BUFFER ? Buffer(part.index)
                        : part.from <= EDGECAP_FROM_STATE  ? State(part.index)
                                                           : -1;
      Require(part.from >= 0 && width == part.width, "a part of the input is not of its width");
      inputs += part.width;
    }
    Require(op.outputs >= 1 && op.weight != nullptr, "no weights");
    Require(s_.precision != EDGECAP_WEIGHTS_I8 || op.scale != nullptr,
            "int8 weights have no scale");
    Require((op.gamma == nullptr) == (op.beta == nullptr), "half a norm");
    Require(op.activation >= EDGECAP_NONE && op.activation <= EDGECAP_TANH, "unknown activation");
    Require(op.keep == -1 || Buffer(op.keep) == inputs, "the kept input has another width");
    Require(op.keep == -1 ||
                (op.keep != op.residual && (op.keep != op.out || op.to == EDGECAP_TO_LSTM ||
                                            op.to == EDGECAP_TO_GRU || op.to == EDGECAP_TO_LOGITS)),
            "the kept input would overwrite what is read or written");
    for (int i = 0; i < op.segments; ++i) {
      Require(op.keep == -1 || op.segment[i].from != EDGECAP_FROM_BUFFER ||
                  op.segment[i].index != op.keep,
              "the kept input would overwrite what it comes from");
    }
    switch (op.to) {
      case EDGECAP_TO_BUFFER:
        Require(Buffer(op.out) == op.outputs, "the output has another width");
        for (int i = 0; i < op.segments; ++i) {
          Require(op.segment[i].from != EDGECAP_FROM_BUFFER || op.segment[i].index != op.out,
                  "the output would overwrite the input");
        }
        break;
      case EDGECAP_TO_QKV:
        Require(op.outputs % 3 == 0 && Buffer(op.out) == op.outputs / 3 &&
                    Cache(op.cache) == op.outputs / 3,
                "query, key and value have other widths than their places");
        break;
      case EDGECAP_TO_LSTM:
      case EDGECAP_TO_GRU:
        Require(op.outputs % 4 == 0 && State(op.out) == op.outputs / 4, "the state's width");
        Require(op.to == EDGECAP_TO_GRU || State(op.state) == op.outputs / 4, "the cell's width");
        break;
      case EDGECAP_TO_LOGITS:
        Require(op.outputs == s_.vocab, "as many logits as words are needed");
        break;
      default:
        Require(false, "an unknown target");
    }
    const bool plain = op.to == EDGECAP_TO_BUFFER;
    Require(op.residual == EDGECAP_NO_RESIDUAL ||
                (plain && op.residual == EDGECAP_RESIDUAL_WORDS && s_.word_width == op.outputs) ||
                (plain && Buffer(op.residual) == op.outputs),
            "the residual has another width");
    Require(plain || op.to == EDGECAP_TO_QKV || op.activation == EDGECAP_NONE,
            "an activation where there can be none");
  }

  void Attention(const EdgecapOperation& op) {
    Require(op.keys >= 0 || op.cache >= 0, "attention over nothing");
    Require(op.heads >= 1, "no heads");
    if (!error_.empty()) return;
    int width = Cache(op.cache);
    Require(op.cache < 0 || (width > 0 && width % op.heads == 0), "heads do not divide the cache");
    if (op.keys >= 0) {
      Require(op.keys < s_.memories && op.values >= 0 && op.values < s_.memories, "no such memory");
      if (!error_.empty()) return;
      const EdgecapMemory &k = s_.memory[op.keys], &v = s_.memory[op.values];
      Require(k.heads == op.heads && v.heads == op.heads && k.places == v.places &&
                  k.depth == v.depth && (width < 0 || k.heads * k.depth == width) &&
                  k.layout != EDGECAP_FIRST && v.layout != EDGECAP_FIRST &&
                  v.layout != EDGECAP_KEYS,
              "memories do not fit");
      width = k.heads * k.depth;
      Require(k.places <= 2048, "a memory of more than 2048 places");
    }
    Require(width / op.heads <= 256, "heads of more than 256 values");
    Require(Buffer(op.query) == width && Buffer(op.out) == width, "query or output width");
  }

  void Additive(const EdgecapOperation& op) {
    Require(op.keys >= 0 && op.keys < s_.memories && op.values >= 0 && op.values < s_.memories,
            "no such memory");
    if (!error_.empty()) return;
    const EdgecapMemory &a = s_.memory[op.keys], &k = s_.memory[op.values];
    Require(a.layout == EDGECAP_SAME && k.layout == EDGECAP_SAME && a.heads == 1 && k.heads == 1 &&
                a.places == k.places && a.places + k.depth <= 8192,
            "memories do not fit");
    Require(Buffer(op.query) == k.depth + 1 && Buffer(op.out) == a.depth && op.score != nullptr,
            "query, output or scores have another width");
  }

  const EdgecapDecoderSpec& s_;
  std::string error_;
  int where_ = -1;
};

}  // namespace edgecap::gpu

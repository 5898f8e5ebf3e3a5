// The decoder kernels under sanitizers: small decoders of all kinds of launches with random
// weights, decoded whole; then descriptions with one number changed at random, which must be
// refused or must decode within their memory.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "decoder_api.cu"

namespace {

std::mt19937 generator(7);

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

int Below(int bound) { return static_cast<int>(generator() % static_cast<unsigned>(bound)); }

struct Arrays {
  std::vector<std::vector<float>> floats;
  std::vector<std::vector<unsigned char>> bytes;

  const float* Floats(size_t count, float spread = 0.5f) {
    std::normal_distribution<float> normal(0.0f, spread);
    floats.emplace_back(count);
    for (float& value : floats.back()) value = normal(generator);
    return floats.back().data();
  }

  // A matrix [rows, stride] of a precision; of half precision small values around 0.5 and -0.5.
  const void* Matrix(int precision, int rows, int columns) {
    const int stride = edgecap::gpu::Stride(precision, columns);
    const size_t each = edgecap::gpu::WeightBytes(precision);
    bytes.emplace_back(each * rows * stride, 0);
    std::normal_distribution<float> normal(0.0f, 0.4f);
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c) {
        unsigned char* at = bytes.back().data() + each * (static_cast<size_t>(r) * stride + c);
        const float value = normal(generator);
        if (precision == EDGECAP_WEIGHTS_F32) {
          std::memcpy(at, &value, 4);
        } else if (precision == EDGECAP_WEIGHTS_F16) {
          const __half half = __float2half_rn(value);
          std::memcpy(at, &half, 2);
        } else {
          *at = static_cast<unsigned char>(static_cast<int8_t>(value * 60.0f));
        }
      }
    }
    return bytes.back().data();
  }
};

constexpr int kVocab = 150, kWidth = 24, kHeads = 3, kPlaces = 5, kPositions = 6, kHidden = 40;

struct Made {
  Arrays arrays;
  std::vector<int32_t> buffers, states, caches;
  std::vector<EdgecapMemory> memories;
  std::vector<EdgecapOperation> operations;
  EdgecapDecoderSpec spec{};

  EdgecapOperation& Add(int kind) {
    EdgecapOperation op{};
    op.kind = kind;
    op.keep = op.out = op.state = op.cache = op.query = op.keys = op.values = -1;
    op.residual = EDGECAP_NO_RESIDUAL;
    operations.push_back(op);
    return operations.back();
  }

  EdgecapOperation& Product(std::vector<EdgecapSegment> parts, int outputs, int to, int out) {
    EdgecapOperation& op = Add(EDGECAP_PRODUCT);
    int inputs = 0;
    for (const EdgecapSegment& part : parts) {
      op.segment[op.segments++] = part;
      inputs += part.width;
    }
    op.outputs = outputs;
    op.to = to;
    op.out = out;
    op.weight = arrays.Matrix(spec.precision, outputs, inputs);
    if (spec.precision == EDGECAP_WEIGHTS_I8) {
      std::vector<float> scale(outputs, 0.01f);
      arrays.floats.push_back(scale);
      op.scale = arrays.floats.back().data();
    }
    op.bias = arrays.Floats(outputs);
    return op;
  }

  void Norm(EdgecapOperation& op, int width) {
    op.gamma = arrays.Floats(width);
    op.beta = arrays.Floats(width);
    op.eps = 1e-5f;
  }

  void Start(int precision) {
    arrays.floats.reserve(256);
    arrays.bytes.reserve(256);
    operations.reserve(32);
    spec.abi = EDGECAP_DECODER_ABI;
    spec.precision = precision;
    spec.vocab = kVocab;
    spec.word_width = kWidth;
    spec.positions = kPositions;
    spec.words = arrays.Matrix(precision, kVocab, kWidth);
    if (precision == EDGECAP_WEIGHTS_I8) {
      arrays.floats.push_back(std::vector<float>(kVocab, 0.01f));
      spec.word_scale = arrays.floats.back().data();
    }
  }

  void Finish() {
    spec.buffers = static_cast<int32_t>(buffers.size());
    spec.states = static_cast<int32_t>(states.size());
    spec.caches = static_cast<int32_t>(caches.size());
    spec.memories = static_cast<int32_t>(memories.size());
    spec.operations = static_cast<int32_t>(operations.size());
    spec.buffer_width = buffers.data();
    spec.state_width = states.data();
    spec.cache_width = caches.data();
    spec.memory = memories.data();
    spec.operation = operations.data();
  }

  // Norms before the branches, cross-attention in the first layer, a prefix in the second.
  void Transformer(int precision) {
    Start(precision);
    spec.places = kPositions + 2;
    spec.place_offset = 2;
    spec.place_table = arrays.Floats(spec.places * kWidth);
    buffers = {kWidth, kWidth, kWidth, kHidden};  // x, query, mixed, hidden
    caches = {kWidth, kWidth};
    for (int i = 0; i < 2; ++i) {
      memories.push_back({i ? EDGECAP_ROWS : EDGECAP_KEYS, kHeads, kPlaces, kWidth / kHeads});
      memories.push_back({i ? EDGECAP_ROWS : EDGECAP_SAME, kHeads, kPlaces, kWidth / kHeads});
    }
    memories.push_back({EDGECAP_FIRST, 1, 1, kWidth});
    for (int layer = 0; layer < 2; ++layer) {
      const EdgecapSegment words{EDGECAP_FROM_WORDS, 0, kWidth}, x{EDGECAP_FROM_BUFFER, 0, kWidth};
      EdgecapOperation& qkv = Product({layer ? x : words}, 3 * kWidth, EDGECAP_TO_QKV, 1);
      Norm(qkv, kWidth);
      qkv.cache = layer;
      if (layer == 0) qkv.keep = 0;
      EdgecapOperation& own = Add(EDGECAP_ATTENTION);
      own.query = 1, own.out = 2, own.heads = kHeads, own.cache = layer, own.product_scale = 0.4f;
      if (layer == 1) own.keys = 2, own.values = 3;
      const EdgecapSegment mixed{EDGECAP_FROM_BUFFER, 2, kWidth};
      Product({mixed}, kWidth, EDGECAP_TO_BUFFER, 0).residual = 0;
      if (layer == 0) {
        Norm(Product({x}, kWidth, EDGECAP_TO_BUFFER, 1), kWidth);
        EdgecapOperation& cross = Add(EDGECAP_ATTENTION);
        cross.query = 1, cross.out = 2, cross.heads = kHeads, cross.product_scale = 0.4f;
        cross.keys = 0, cross.values = 1;
        Product({mixed}, kWidth, EDGECAP_TO_BUFFER, 0).residual = 0;
      }
      EdgecapOperation& up = Product({x}, kHidden, EDGECAP_TO_BUFFER, 3);
      Norm(up, kWidth);
      up.activation = layer ? EDGECAP_GELU : EDGECAP_GELU_TANH;
      Product({{EDGECAP_FROM_BUFFER, 3, kHidden}}, kWidth, EDGECAP_TO_BUFFER, 0).residual = 0;
    }
    Norm(Product({{EDGECAP_FROM_BUFFER, 0, kWidth}}, kVocab, EDGECAP_TO_LOGITS, -1), kWidth);
    Finish();
  }

  void Recurrent(int precision, bool lstm) {
    Start(precision);
    constexpr int kAnnotation = 18, kScores = 33, kState = 20;
    buffers = {kScores + 1, kAnnotation, kWidth};
    states.assign(lstm ? 2 : 1, kState);
    memories = {{EDGECAP_SAME, 1, kPlaces, kAnnotation}, {EDGECAP_SAME, 1, kPlaces, kScores}};
    const EdgecapSegment words{EDGECAP_FROM_WORDS, 0, kWidth};
    const EdgecapSegment before{EDGECAP_FROM_PARENT, 0, kState},
        after{EDGECAP_FROM_STATE, 0, kState};
    const EdgecapSegment context{EDGECAP_FROM_BUFFER, 1, kAnnotation};
    Product({before}, kScores + 1, EDGECAP_TO_BUFFER, 0);
    EdgecapOperation& look = Add(EDGECAP_ADDITIVE);
    look.query = 0, look.out = 1, look.keys = 0, look.values = 1;
    look.score = arrays.Floats(kScores);
    EdgecapOperation& cell =
        Product({words, context, before}, 4 * kState, lstm ? EDGECAP_TO_LSTM : EDGECAP_TO_GRU, 0);
    cell.state = lstm ? 1 : -1;
    EdgecapOperation& read = Product({after, context}, kWidth, EDGECAP_TO_BUFFER, 2);
    read.residual = EDGECAP_RESIDUAL_WORDS;
    read.activation = EDGECAP_TANH;
    Product({{EDGECAP_FROM_BUFFER, 2, kWidth}}, kVocab, EDGECAP_TO_LOGITS, -1);
    Finish();
  }

  // Gives the code of the creation; decodes where that is good.
  int Run(int batch, int beams, float penalty, bool sensible) {
    EdgecapDecoder* decoder = nullptr;
    char text[256];
    const int code = edgecap_decoder_create(&spec, &decoder, text, sizeof(text));
    if (code != EDGECAP_DECODER_OK) {
      if (decoder != nullptr || text[0] == '\0') Fail("an error without a text");
      return code;
    }
    const int32_t suppressed[] = {3, 149, 100000};
    EdgecapSearch search{};
    search.batch = batch;
    search.beams = beams;
    search.max_new_tokens = kPositions;
    search.no_repeat_ngram_size = penalty != 1.0f ? 2 : 0;
    search.bos = 1;
    search.eos = 2;
    search.repetition_penalty = penalty;
    search.length_penalty = 1.0;
    search.suppressed = 3;
    search.suppress_tokens = suppressed;
    std::vector<const void*> memory, carry;
    Arrays given;
    given.floats.reserve(16);
    for (const EdgecapMemory& m : memories) {
      memory.push_back(given.Floats(static_cast<size_t>(batch) * m.heads * m.places * m.depth));
    }
    for (const int width : states)
      carry.push_back(given.Floats(static_cast<size_t>(batch) * width));
    const size_t rows = static_cast<size_t>(batch) * beams;
    std::vector<int32_t> tokens(rows * kPositions), lengths(rows);
    std::vector<float> logprobs(rows * kPositions), scores(rows);
    int32_t steps = 0, truncated = 0;
    for (int again = 0; again < 2; ++again) {
      if (edgecap_decoder_decode(decoder, &search, memory.data(), carry.data(), nullptr, nullptr) !=
              EDGECAP_DECODER_OK ||
          edgecap_decoder_results(decoder, tokens.data(), logprobs.data(), lengths.data(),
                                  scores.data(), &steps, &truncated) != EDGECAP_DECODER_OK) {
        Fail(edgecap_decoder_message(decoder));
      }
      if (steps < 1 || steps > kPositions || lengths[0] > kPositions) Fail("no caption");
      if (sensible && lengths[0] < 1) Fail("an empty caption");
      if (truncated) Fail("a caption that nothing stopped is cut short");
    }
    edgecap_decoder_destroy(decoder);
    return code;
  }
};

void Build(Made& made, int kind, int precision) {
  if (kind == 0) {
    made.Transformer(precision);
  } else {
    made.Recurrent(precision, kind == 1);
  }
}

// One number of the description changed. Arrays keep their sizes, so numbers that size an array of
// the caller's are left alone.
void Disturb(Made& made) {
  EdgecapOperation& op = made.operations[Below(static_cast<int>(made.operations.size()))];
  int32_t* fields[] = {&op.kind,  &op.segments, &op.activation, &op.residual,   &op.keep,
                       &op.to,    &op.out,      &op.state,      &op.cache,      &op.query,
                       &op.heads, &op.keys,     &op.values,     &op.keep_normed};
  const int which = Below(22);
  if (which < 14) {
    *fields[which] = Below(9) - 2;
  } else if (which < 18) {
    EdgecapSegment& part = op.segment[Below(3)];
    int32_t* of_part[] = {&part.from, &part.index, &part.width};
    *of_part[Below(3)] = Below(50) - 2;
  } else if (which == 18) {
    if (!made.memories.empty()) {
      made.memories[Below(static_cast<int>(made.memories.size()))].layout = Below(6) - 1;
    }
  } else if (which == 19) {
    made.spec.place_offset = Below(12) - 2;
  } else if (which == 20) {
    made.spec.positions = Below(2 * kPositions) + kPositions;
  } else {
    std::swap(made.operations[Below(static_cast<int>(made.operations.size()))], op);
  }
}

}  // namespace

int main() {
  for (int kind = 0; kind < 3; ++kind) {
    for (int precision = EDGECAP_WEIGHTS_F32; precision <= EDGECAP_WEIGHTS_I8; ++precision) {
      const int shapes[][2] = {{1, 1}, {2, 3}, {1, 16}};
      for (const auto& shape : shapes) {
        Made made;
        Build(made, kind, precision);
        if (made.Run(shape[0], shape[1], shape[1] == 3 ? 1.3f : 1.0f, true) != 0) Fail("refused");
      }
    }
  }
  int refused = 0;
  constexpr int kTries = 150;
  for (int i = 0; i < kTries; ++i) {
    Made made;
    Build(made, i % 3, EDGECAP_WEIGHTS_F32);
    Disturb(made);
    refused += made.Run(1, 2, 1.0f, false) == EDGECAP_DECODER_BAD_SPEC;
  }
  if (refused < kTries / 4 || refused == kTries) Fail("too few or too many were refused");
  std::puts("sound");
}

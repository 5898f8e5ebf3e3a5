// The C interface of whole-caption decoding, decoder_api.h: weights go to the device once, plans
// are made when a search of a new kind comes and kept.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <list>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "decoder_api.h"
#include "decoder_check.h"
#include "decoder_loop.cuh"
#include "decoder_memory.cuh"

namespace {

using namespace edgecap::gpu;

constexpr size_t kMaxPlans = 8;

// Calls `use` with a value of the type of the weights and one of the caches'.
template <typename Use>
cudaError_t WithTypes(int precision, const Use& use) {
  if (precision == EDGECAP_WEIGHTS_F32) return use(float{}, float{});
  if (precision == EDGECAP_WEIGHTS_F16) return use(__half{}, __half{});
  return use(int8_t{}, __half{});
}

void CheckDevice() {
  int device = 0, major = 0, minor = 0;
  Check(cudaGetDevice(&device), "no CUDA device");
  Check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "the device");
  Check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "the device");
  cudaFuncAttributes attributes{};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, BeginSearchKernel);
  if (error == cudaSuccess) return;
  cudaGetLastError();
  throw Failure{EDGECAP_DECODER_NO_CODE,
                Format("the library has no code for this GPU of compute capability %d.%d (%s); "
                       "build it with -arch=sm_%d%d",
                       major, minor, cudaGetErrorString(error), major, minor)};
}

}  // namespace

struct EdgecapDecoder {
  Description about;
  unsigned char* weights = nullptr;
  size_t weight_bytes = 0;
  cudaStream_t recorder = nullptr;         // graphs are recorded on it; else it only stops decodes
  std::list<std::unique_ptr<Plan>> plans;  // the newest first
  Plan* running = nullptr;
  std::atomic<int*> stop{nullptr};  // of the decode that runs
  cudaStream_t stream = nullptr;
  int launches = 0;  // of one step of the last plan made
  std::string message;

  explicit EdgecapDecoder(const EdgecapDecoderSpec& spec) {
    const std::string odd = SpecCheck(spec).Run();
    if (!odd.empty()) throw Failure{EDGECAP_DECODER_BAD_SPEC, odd};
    CheckDevice();
    int device = 0;
    Check(cudaGetDevice(&device), "no CUDA device");
    Check(cudaDeviceGetAttribute(&about.processors, cudaDevAttrMultiProcessorCount, device),
          "the device");
    about.spec = spec;
    about.operations.assign(spec.operation, spec.operation + spec.operations);
    about.memories.assign(spec.memory, spec.memory + spec.memories);
    about.buffers.assign(spec.buffer_width, spec.buffer_width + spec.buffers);
    about.states.assign(spec.state_width, spec.state_width + spec.states);
    about.caches.assign(spec.cache_width, spec.cache_width + spec.caches);
    about.spec.buffer_width = about.spec.state_width = about.spec.cache_width = nullptr;
    about.spec.memory = nullptr;
    about.spec.operation = nullptr;
    Upload();
    const cudaError_t error = cudaStreamCreateWithFlags(&recorder, cudaStreamNonBlocking);
    if (error != cudaSuccess) cudaFree(weights);
    Check(error, "cudaStreamCreateWithFlags");
  }

  ~EdgecapDecoder() {
    if (running != nullptr) cudaStreamSynchronize(stream);
    for (auto& plan : plans) Free(plan.get());
    cudaStreamDestroy(recorder);
    cudaFree(weights);
  }

  void Upload() {
    EdgecapDecoderSpec& s = about.spec;
    const size_t each = WeightBytes(s.precision);
    Uploads uploads;
    uploads.Add(s.words, each * s.vocab * Stride(s.precision, s.word_width));
    uploads.Add(s.word_scale, sizeof(float) * s.vocab);
    uploads.Add(s.place_table, sizeof(float) * s.places * s.word_width);
    for (EdgecapOperation& op : about.operations) {
      if (op.kind == EDGECAP_ADDITIVE) {
        uploads.Add(op.score, sizeof(float) * about.memories[op.values].depth);
      }
      if (op.kind != EDGECAP_PRODUCT) continue;
      int inputs = 0;
      for (int i = 0; i < op.segments; ++i) inputs += op.segment[i].width;
      uploads.Add(op.weight, each * op.outputs * Stride(s.precision, inputs));
      uploads.Add(op.scale, sizeof(float) * op.outputs);
      uploads.Add(op.bias, sizeof(float) * op.outputs);
      uploads.Add(op.gamma, sizeof(float) * inputs);
      uploads.Add(op.beta, sizeof(float) * inputs);
    }
    weight_bytes = uploads.size();
    weights = uploads.Run();
  }

  static void Free(Plan* plan) {
    DestroyGraphs(plan);
    if (plan->device != nullptr) cudaFree(plan->device);
    if (plan->host != nullptr) cudaFreeHost(plan->host);
    plan->device = plan->host = nullptr;
  }

  PlanKey Key(const EdgecapSearch& search) const {
    const EdgecapDecoderSpec& s = about.spec;
    const auto require = [](bool holds, const std::string& text) {
      if (!holds) throw Failure{EDGECAP_DECODER_BAD_OPTIONS, text};
    };
    const int most = std::min(s.positions, kMaxHeadLimit);
    require(search.beams >= 1 && search.beams <= kMaxBeams,
            Format("%d beams; the kernels take 1 to %d", search.beams, kMaxBeams));
    require(search.batch >= 1 && search.batch <= kMaxRows / search.beams,
            Format("%d pictures of %d beams; the kernels take %d rows at once", search.batch,
                   search.beams, kMaxRows));
    require(search.max_new_tokens >= 1 && search.max_new_tokens <= most,
            Format("captions of %d tokens; give 1 to %d", search.max_new_tokens, most));
    require(search.eos >= 0 && search.eos < s.vocab && search.bos >= 0 && search.pad >= 0,
            "eos, bos or pad is no token");
    require(search.repetition_penalty > 0.0f, "a repetition penalty that is not above 0");
    require(search.no_repeat_ngram_size >= 0 && search.min_new_tokens >= 0 &&
                search.early_stopping >= 0 && search.early_stopping <= 2 && search.suppressed >= 0,
            "an option below 0");
    PlanKey key{};
    BeamShape& shape = key.shape;
    shape.batch = search.batch;
    shape.beams = search.beams;
    shape.vocab = s.vocab;
    shape.positions = shape.limit = search.max_new_tokens;
    shape.min_new_tokens = search.min_new_tokens;
    shape.no_repeat_ngram_size = search.no_repeat_ngram_size;
    shape.early_stopping = search.early_stopping;
    shape.bound_at_limit = search.early_stopping == 2 && search.length_penalty > 0.0;
    shape.bos = search.bos;
    shape.eos = search.eos;
    shape.pad = search.pad;
    shape.repetition_penalty = search.repetition_penalty;
    const int part = TokensPerPart(s.vocab, search.batch * search.beams, about.processors);
    shape.parts = (s.vocab + part - 1) / part;
    key.length_penalty = search.length_penalty;
    for (int i = 0; i < search.suppressed; ++i) {
      const int token = search.suppress_tokens[i];
      if (token >= 0 && token < s.vocab) key.suppressed.push_back(token);
    }
    std::sort(key.suppressed.begin(), key.suppressed.end());
    return key;
  }

  Plan* FindPlan(const EdgecapSearch& search) {
    const PlanKey key = Key(search);
    for (auto at = plans.begin(); at != plans.end(); ++at) {
      if ((*at)->key == key) {
        plans.splice(plans.begin(), plans, at);
        return plans.front().get();
      }
    }
    if (plans.size() >= kMaxPlans) {
      Free(plans.back().get());
      plans.pop_back();
    }
    plans.push_front(MakePlan(key));
    return plans.front().get();
  }

  std::unique_ptr<Plan> MakePlan(const PlanKey& key) {
    auto plan = std::make_unique<Plan>();
    plan->key = key;
    plan->about = &about;
    plan->part = TokensPerPart(key.shape.vocab, plan->rows(), about.processors);
    plan->Arrange(0);
    try {
      Allocate(&plan->device, plan->bytes,
               Format("%d pictures of %d beams", key.shape.batch, key.shape.beams));
      Check(cudaMallocHost(&plan->host, plan->host_bytes), "cudaMallocHost");
      plan->Arrange(reinterpret_cast<uintptr_t>(plan->device));
      SendTables(*plan);
      Check(WithTypes(about.spec.precision,
                      [&](auto w, auto c) {
                        return Build<decltype(w), decltype(c)>(plan.get(), recorder);
                      }),
            "recording the launches of a caption");
    } catch (...) {
      Free(plan.get());
      throw;
    }
    return plan;
  }

  // What a search reads and nothing writes.
  static void SendTables(const Plan& plan) {
    const BeamShape& shape = plan.shape();
    std::vector<float> norms(shape.limit + 1);
    for (int i = 0; i <= shape.limit; ++i) {
      norms[i] = static_cast<float>(std::pow(std::max(i, 1), plan.key.length_penalty));
    }
    std::vector<uint32_t> bits((shape.vocab + 31) / 32, 0u);
    for (const int token : plan.key.suppressed) bits[token / 32] |= 1u << token % 32;
    Check(cudaMemcpy(plan.beams.norms, norms.data(), norms.size() * sizeof(float),
                     cudaMemcpyHostToDevice),
          "copying the search's tables");
    Check(cudaMemcpy(plan.beams.suppressed, bits.data(), bits.size() * sizeof(uint32_t),
                     cudaMemcpyHostToDevice),
          "copying the search's tables");
  }

  void Decode(const EdgecapSearch& search, const void* const* memory, const void* const* carry,
              const uint8_t* places, cudaStream_t given) {
    if (running != nullptr) Wait();
    Plan* plan = FindPlan(search);
    size_t number = 0;
    const auto send = [&](float* to, const void* from, size_t host, size_t values) {
      const size_t bytes = values * sizeof(float);
      const int place = places == nullptr ? int{EDGECAP_HOST} : places[number++];
      if (place > EDGECAP_DEVICE_HALF) {
        throw Failure{EDGECAP_DECODER_BAD_OPTIONS, Format("an array at place %d", place)};
      }
      if (place == EDGECAP_DEVICE_HALF) {
        const int count = static_cast<int>(values);
        Check(Launch(WidenKernel, Blocks(count), dim3(kStepThreads), 0, given,
                     static_cast<const __half*>(from), to, count),
              "widening memory");
        return;
      }
      if (place == EDGECAP_DEVICE) {
        Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, given), "copying memory");
        return;
      }
      std::memcpy(plan->host + host, from, bytes);
      Check(cudaMemcpyAsync(to, plan->host + host, bytes, cudaMemcpyHostToDevice, given),
            "copying memory");
    };
    const size_t batch = search.batch;
    for (size_t i = 0; i < about.memories.size(); ++i) {
      send(plan->staged_memory[i], memory[i], plan->host_memory[i],
           batch * Description::Count(about.memories[i]));
    }
    for (size_t i = 0; i < about.states.size(); ++i) {
      send(plan->staged_carry[i], carry[i], plan->host_carry[i], batch * about.states[i]);
    }
    Check(cudaMemsetAsync(plan->stop, search.stopped != 0, sizeof(int), given), "decoding");
    running = plan;
    stream = given;
    stop = plan->stop;
    Check(WithTypes(about.spec.precision,
                    [&](auto w, auto c) { return Run<decltype(w), decltype(c)>(*plan, given); }),
          "decoding");
  }

  void Wait() {
    const cudaError_t error = cudaStreamSynchronize(stream);
    stop = nullptr;
    running = nullptr;
    Check(error, "decoding");
  }

  void Results(int32_t* tokens, float* logprobs, int32_t* lengths, float* scores, int32_t* steps,
               int32_t* truncated) {
    if (running == nullptr) {
      throw Failure{EDGECAP_DECODER_BAD_OPTIONS, "there is no decode to wait for"};
    }
    const Plan* plan = running;
    Wait();
    const unsigned char* outcome = plan->host + plan->host_outcome;
    const auto* found = reinterpret_cast<const OutcomeHead*>(outcome);
    *steps = found->steps;
    *truncated = found->truncated;
    const size_t limit = plan->shape().limit;
    for (size_t i = 0; i < static_cast<size_t>(plan->rows()); ++i) {
      const unsigned char* result = outcome + sizeof(OutcomeHead) + i * ResultBytes(plan->shape());
      const auto* head = reinterpret_cast<const ResultHead*>(result);
      lengths[i] = head->length;
      scores[i] = head->score;
      std::memcpy(tokens + i * limit, head + 1, limit * sizeof(int32_t));
      std::memcpy(logprobs + i * limit, result + sizeof(ResultHead) + limit * sizeof(int32_t),
                  limit * sizeof(float));
    }
  }
};

namespace {

template <typename Work>
int Guarded(std::string* message, const Work& work) {
  try {
    work();
    return EDGECAP_DECODER_OK;
  } catch (const Failure& failure) {
    *message = failure.text;
    return failure.code;
  } catch (const std::bad_alloc&) {
    *message = "the host's memory is full";
    return EDGECAP_DECODER_NO_MEMORY;
  } catch (const std::exception& error) {
    *message = error.what();
    return EDGECAP_DECODER_CUDA;
  }
}

}  // namespace

extern "C" {

int edgecap_decoder_create(const EdgecapDecoderSpec* spec, EdgecapDecoder** made, char* message,
                           size_t room) {
  std::string text;
  *made = nullptr;
  const int code = Guarded(&text, [&] { *made = new EdgecapDecoder(*spec); });
  if (message != nullptr && room > 0) std::snprintf(message, room, "%s", text.c_str());
  return code;
}

int edgecap_decoder_decode(EdgecapDecoder* decoder, const EdgecapSearch* search,
                           const void* const* memory, const void* const* carry,
                           const uint8_t* places, void* stream) {
  return Guarded(&decoder->message, [&] {
    decoder->Decode(*search, memory, carry, places, static_cast<cudaStream_t>(stream));
  });
}

int edgecap_decoder_stop(EdgecapDecoder* decoder) {
  int* const word = decoder->stop;
  if (word == nullptr) return EDGECAP_DECODER_OK;
  // On a stream of its own: it overtakes what is queued.
  const cudaError_t error = cudaMemsetAsync(word, 1, sizeof(int), decoder->recorder);
  return error == cudaSuccess ? EDGECAP_DECODER_OK : EDGECAP_DECODER_CUDA;
}

int edgecap_decoder_results(EdgecapDecoder* decoder, int32_t* tokens, float* logprobs,
                            int32_t* lengths, float* scores, int32_t* steps, int32_t* truncated) {
  return Guarded(&decoder->message,
                 [&] { decoder->Results(tokens, logprobs, lengths, scores, steps, truncated); });
}

int edgecap_decoder_describe(const EdgecapDecoder* decoder, int32_t* loop, int32_t* step_launches,
                             size_t* weight_bytes, size_t* state_bytes) {
  const bool planned = !decoder->plans.empty();
  const bool selects = planned && decoder->plans.front()->shape().batch > 1;
  *loop = planned ? decoder->plans.front()->loop : -1;
  *step_launches = static_cast<int32_t>(decoder->about.operations.size()) + selects;
  *weight_bytes = decoder->weight_bytes;
  *state_bytes = planned ? decoder->plans.front()->bytes : 0;
  return EDGECAP_DECODER_OK;
}

const char* edgecap_decoder_message(const EdgecapDecoder* decoder) {
  return decoder->message.c_str();
}

void edgecap_decoder_destroy(EdgecapDecoder* decoder) { delete decoder; }

}  // extern "C"

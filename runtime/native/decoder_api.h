/* Whole captions on the GPU: a decoder described by its launches, and beam search over it.
 *
 * A decoder is created once from weights in host memory, which it copies. A decode queues
 * everything on one stream and returns; results wait for it. Functions give 0 or an error code; the
 * text of the last error of a decoder is kept in it. A decoder serves one thread at a time.
 */
#ifndef EDGECAP_DECODER_API_H_
#define EDGECAP_DECODER_API_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EDGECAP_DECODER_ABI 2

enum {
  EDGECAP_DECODER_OK = 0,
  EDGECAP_DECODER_BAD_SPEC = 1,    /* the description contradicts itself */
  EDGECAP_DECODER_BAD_OPTIONS = 2, /* a decode is out of the kernels' range */
  EDGECAP_DECODER_NO_MEMORY = 3,   /* the text says how much was needed */
  EDGECAP_DECODER_NO_CODE = 4,     /* the library has no code for this GPU */
  EDGECAP_DECODER_CUDA = 5         /* CUDA failed; the text is its own */
};

enum { EDGECAP_WEIGHTS_F32 = 0, EDGECAP_WEIGHTS_F16 = 1, EDGECAP_WEIGHTS_I8 = 2 };
enum { EDGECAP_PRODUCT = 0, EDGECAP_ATTENTION = 1, EDGECAP_ADDITIVE = 2 };
enum {
  EDGECAP_FROM_WORDS = 0,
  EDGECAP_FROM_BUFFER = 1,
  EDGECAP_FROM_PARENT = 2,
  EDGECAP_FROM_STATE = 3
};
enum {
  EDGECAP_TO_BUFFER = 0,
  EDGECAP_TO_QKV = 1,
  EDGECAP_TO_LSTM = 2,
  EDGECAP_TO_GRU = 3,
  EDGECAP_TO_LOGITS = 4
};
enum {
  EDGECAP_NONE = 0,
  EDGECAP_RELU = 1,
  EDGECAP_GELU = 2,
  EDGECAP_GELU_TANH = 3,
  EDGECAP_TANH = 4
};
enum { EDGECAP_SAME = 0, EDGECAP_KEYS = 1, EDGECAP_ROWS = 2, EDGECAP_FIRST = 3 };
enum { EDGECAP_NO_RESIDUAL = -1, EDGECAP_RESIDUAL_WORDS = -2 };

/* A part of a product's input: `width` values of the words' embedding, of a buffer, of the parent's
 * state or of this step's state. */
typedef struct {
  int32_t from, index, width;
} EdgecapSegment;

/* One launch of a step. Buffers, states, caches and memories are numbered in the order of the
 * description; -1 is none. */
typedef struct {
  int32_t kind;
  /* products: the norm of the joined segments, times weight [outputs, stride], times the scale of
   * int8, plus bias and residual, then the activation. Stride: the inputs rounded up to 128 bytes.
   */
  int32_t segments;
  EdgecapSegment segment[3];
  int32_t outputs, activation;
  int32_t residual;          /* a buffer, or one of the constants above */
  int32_t keep, keep_normed; /* a buffer that gets the input, before or after its norm */
  int32_t to;
  int32_t out;   /* a buffer; of a cell the state h */
  int32_t state; /* of an LSTM the state c */
  int32_t cache; /* of query, key and value; of attention over a row's own past */
  float eps;
  const void* weight;
  const float* scale;
  const float* bias;
  const float* gamma; /* null without a norm */
  const float* beta;
  /* attention: query and out are buffers */
  int32_t query, heads;
  int32_t keys, values; /* memories; of additive attention annotations and their scores */
  float product_scale;
  const float* score; /* of additive attention, [width of the scores] */
} EdgecapOperation;

/* A picture's tensor as the encoder gives it, float32: EDGECAP_SAME [B, places, heads * depth] with
 * one head, KEYS [B, heads, depth, places], ROWS [B, places, heads * depth], FIRST [B, depth].
 * Values [B, heads, places, depth] are SAME with those heads. */
typedef struct {
  int32_t layout, heads, places, depth;
} EdgecapMemory;

typedef struct {
  int32_t abi;       /* EDGECAP_DECODER_ABI */
  int32_t precision; /* of weights; caches and memory are float32 with it, else float16 */
  int32_t vocab, word_width, positions;
  int32_t places, place_offset; /* rows of the table of places; what is added to the position */
  const void* words;            /* [vocab, stride] */
  const float* word_scale;
  const float* place_table; /* [places, word_width] or null */
  int32_t buffers, states, caches, memories, operations;
  const int32_t* buffer_width;
  const int32_t* state_width;
  const int32_t* cache_width;
  const EdgecapMemory* memory;
  const EdgecapOperation* operation;
} EdgecapDecoderSpec;

/* A search, as DecodingOptions has it. early_stopping: 0 false, 1 true, 2 never. */
typedef struct {
  int32_t batch, beams, max_new_tokens, min_new_tokens, no_repeat_ngram_size, early_stopping;
  int32_t bos, eos, pad;
  float repetition_penalty;
  double length_penalty;
  int32_t suppressed;
  const int32_t* suppress_tokens;
  int32_t stopped; /* not 0: it is stopped before it begins, after one step */
} EdgecapSearch;

/* Where an array lies, and its numbers. */
enum EdgecapPlace {
  EDGECAP_HOST = 0,        /* host memory, float32 */
  EDGECAP_DEVICE = 1,      /* the device's memory, float32 */
  EDGECAP_DEVICE_HALF = 2, /* the device's memory, float16 */
};

typedef struct EdgecapDecoder EdgecapDecoder;

/* `message`, of `room` bytes, gets the text of an error. */
int edgecap_decoder_create(const EdgecapDecoderSpec* spec, EdgecapDecoder** made, char* message,
                           size_t room);

/* Queues a caption search. `memory` and `carry` are arrays in the order of the description. Where
 * each lies `places` says (memories first); null: all on the host. Host arrays may change once it
 * returns, those on the device after edgecap_decoder_results. */
int edgecap_decoder_decode(EdgecapDecoder* decoder, const EdgecapSearch* search,
                           const void* const* memory, const void* const* carry,
                           const uint8_t* places, void* stream);

/* Ends the decode that runs after the step it is at, with what it found so far. The one call that
 * another thread may make meanwhile. Without a decode, or before its launches are queued, it does
 * nothing: who means a deadline repeats it. */
int edgecap_decoder_stop(EdgecapDecoder* decoder);

/* Waits for the decode: tokens and logprobs [B, K, max_new_tokens], lengths and scores [B, K], best
 * hypothesis first, the steps taken, and whether it was stopped before it was over. */
int edgecap_decoder_results(EdgecapDecoder* decoder, int32_t* tokens, float* logprobs,
                            int32_t* lengths, float* scores, int32_t* steps, int32_t* truncated);

/* What the last decode was: 0 a plain loop of launches, 1 an unrolled graph, 2 a graph with a WHILE
 * node; and how many launches one step has. */
int edgecap_decoder_describe(const EdgecapDecoder* decoder, int32_t* loop, int32_t* step_launches,
                             size_t* weight_bytes, size_t* state_bytes);

const char* edgecap_decoder_message(const EdgecapDecoder* decoder);

void edgecap_decoder_destroy(EdgecapDecoder* decoder);

#ifdef __cplusplus
}
#endif

#endif /* EDGECAP_DECODER_API_H_ */

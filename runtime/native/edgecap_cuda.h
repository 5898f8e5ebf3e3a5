/* Beam search on a CUDA device: a C interface of raw device pointers and a stream, for any
   language.

   The caller owns all memory. A search of B images with K beams (R = B * K rows, those of an image
   together) keeps its whole state in one allocation; nothing is allocated after that, and no call
   but edgecap_beam_init waits for the device. Order of calls:

     edgecap_beam_layout    how much memory, and what lies where in it
     edgecap_beam_init      once per configuration: tables, and a fresh search
     edgecap_beam_step      once per decoder step, with its logits
     edgecap_beam_results   hypotheses to the host
     edgecap_beam_reset     a fresh search of the same configuration

   step, reset and results may be captured into CUDA graphs: nothing about a step is an argument.
   Every function gives 0, or an error code that edgecap_cuda_message explains. */
#ifndef EDGECAP_CUDA_H_
#define EDGECAP_CUDA_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum edgecap_error {
  EDGECAP_OK = 0,
  EDGECAP_BATCH = 1,
  EDGECAP_BEAMS = 2,
  EDGECAP_VOCAB = 3,
  EDGECAP_POSITIONS = 4,
  EDGECAP_LENGTHS = 5,
  EDGECAP_NGRAM = 6,
  EDGECAP_REPETITION = 7,
  EDGECAP_LENGTH_PENALTY = 8,
  EDGECAP_EARLY_STOPPING = 9,
  EDGECAP_SPECIAL = 10,
  EDGECAP_SUPPRESS = 11,
  EDGECAP_PARTS = 12,
  EDGECAP_NULL = 13,
  EDGECAP_ALIGNMENT = 14,
  EDGECAP_DTYPE = 15,
  EDGECAP_STRIDE = 16,
  EDGECAP_STATE_BYTES = 17,
  EDGECAP_COUNT = 18,
  EDGECAP_NO_CODE = 19,
  EDGECAP_NO_GRAPHS = 20,   /* of the emulation: launches are not recorded, they run at once */
  EDGECAP_CUDA_ERROR = 1000 /* plus the number of the CUDA runtime's error */
};

enum edgecap_dtype { EDGECAP_FLOAT32 = 0, EDGECAP_FLOAT16 = 1, EDGECAP_BFLOAT16 = 2 };

typedef struct edgecap_beam_config {
  int32_t batch;                /* B, 1 to 64 */
  int32_t beams;                /* K, 1 to 16; 1 is greedy search */
  int32_t vocab;                /* V, 2 to 262144 */
  int32_t positions;            /* T, 1 to 1024 */
  int32_t max_new_tokens;       /* 1 to T, EOS counted */
  int32_t min_new_tokens;       /* 0 to max_new_tokens */
  int32_t no_repeat_ngram_size; /* 0 is off */
  int32_t early_stopping;       /* 0 False, 1 True, 2 "never" */
  int32_t bos, eos, pad;        /* eos below V, none negative */
  int32_t ancestry;             /* 1: keep ancestry bool [R, K * T], too */
  int32_t multiprocessors;      /* the vocabulary is split to keep so many busy; 0: the device's */
  int32_t parts;                /* parts of a row of logits, 1 to 4096; 0: from multiprocessors */
  float repetition_penalty;     /* above 0; 1 is off */
  float reserved;
  double length_penalty;          /* -10 to 10 */
  const int32_t* suppress_tokens; /* host memory, read by init only; those from V on are ignored */
  int32_t suppress_count;
} edgecap_beam_config;

/* Offsets in bytes from the start of the state, which lies at a multiple of 256. */
typedef struct edgecap_beam_places {
  size_t state_bytes;
  size_t
      result_bytes; /* of one hypothesis: float score, int32 length, int32 tokens[max_new_tokens],
                       float logprobs[max_new_tokens]; length 0 means that none exists */
  size_t control;   /* int32 position, int32 keep_going, ... */
  size_t tokens;    /* int32 [R] the next input of each row */
  size_t parents;   /* int32 [R] the global row each row continues */
  size_t tokens64, parents64, position64; /* the same as int64; position64 is one number */
  size_t origin;   /* uint8 [R, T] beam whose cache slot (t, beam) holds the row's own past */
  size_t ancestry; /* bool [R, K * T] the same as a mask over slots t * K + beam; SIZE_MAX: none */
  int32_t parts;   /* what 0 came to */
} edgecap_beam_places;

int edgecap_beam_layout(const edgecap_beam_config* config, edgecap_beam_places* places);

int edgecap_beam_init(const edgecap_beam_config* config, void* state, size_t state_bytes,
                      void* stream);

int edgecap_beam_reset(const edgecap_beam_config* config, void* state, void* stream);

/* logits [R, V] on the device, rows `row_stride` elements apart, aligned to an element. NaN counts
   as -inf, +inf as the largest float32. Once every image is done a step changes nothing. */
int edgecap_beam_step(const edgecap_beam_config* config, void* state, const void* logits, int dtype,
                      int64_t row_stride, void* stream);

/* Copies position and keep_going (int32 [2]) to `host` when the stream gets there. */
int edgecap_beam_poll(const edgecap_beam_config* config, const void* state, int32_t* host,
                      void* stream);

/* Copies the best `count` (1 to K) hypotheses of each image, [B, count] of result_bytes each, to
   `host` when the stream gets there. Before the search is over: finished ones first, then running.
 */
int edgecap_beam_results(const edgecap_beam_config* config, void* state, int count, void* host,
                         void* stream);

/* Another engine's decoder under this search: its new rows of a cache, [R] of row_bytes each, to
   the slots [B, T, K] of this step's position in `cache`. Comes before the step. */
int edgecap_beam_append(const edgecap_beam_config* config, const void* state, const void* rows,
                        void* cache, int64_t row_bytes, void* stream);

/* Records what is queued on `stream` between begin and end as a CUDA graph, which launch then runs
   as a whole, any number of times. Nothing between them may wait for the device. */
int edgecap_capture_begin(void* stream);
int edgecap_capture_end(void* stream, void** graph);
int edgecap_capture_launch(void* graph, void* stream);
int edgecap_capture_free(void* graph);

/* One line on an error code. Valid until the thread's next call. */
const char* edgecap_cuda_message(int code);

/* Compute capabilities the kernels were built for, such as "75,87"; "emulated" for the CPU's. */
const char* edgecap_cuda_architectures(void);

/* Whether the kernels run on the current device. Where they do not, `text` gets one line. */
int edgecap_cuda_check_device(char* text, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif /* EDGECAP_CUDA_H_ */

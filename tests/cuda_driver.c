/* A CUDA driver in this machine's own memory, for tests: the calls that EdgeCap makes, no kernels.
 *
 * The real bindings (cuda-python, PyCUDA) load it as libcuda.so.1, so what is tested is the real
 * call with its real types. As a driver does, it answers CUDA_ERROR_INVALID_CONTEXT to a thread
 * without a current context and CUDA_ERROR_INVALID_VALUE to addresses that nobody allocated, and
 * its memory ends: EMULATED_GPU_MEMORY bytes, 64 MiB by default. EMULATED_GPU_INTEGRATED=1 makes
 * it a GPU that shares the CPU's memory.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NOT_FOUND = 500 };
#define API __attribute__((visibility("default"))) int
#define MOST 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
  uintptr_t at;
  size_t size;
} blocks[MOST];
static size_t used;
static int primary, streams;
static __thread void* stack[16];
static __thread int depth;

static size_t total(void) {
  const char* text = getenv("EMULATED_GPU_MEMORY");
  return text ? strtoull(text, NULL, 10) : (size_t)64 << 20;
}

static int current(void) { return depth > 0; }

static int inside(uintptr_t at, size_t size) {
  int found = 0;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < MOST; i++)
    if (blocks[i].at && blocks[i].at <= at && at + size <= blocks[i].at + blocks[i].size) found = 1;
  pthread_mutex_unlock(&lock);
  return found;
}

static int reserve(uintptr_t* at, size_t size) {
  if (!current()) return INVALID_CONTEXT;
  if (!size) return INVALID_VALUE;
  int status = OUT_OF_MEMORY;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < MOST && used + size <= total(); i++) {
    if (blocks[i].at) continue;
    void* memory = NULL;
    if (posix_memalign(&memory, 256, size)) break;
    memset(memory, 0xAB, size); /* what a driver leaves there is nobody's to rely on */
    blocks[i].at = *at = (uintptr_t)memory;
    blocks[i].size = size;
    used += size;
    status = SUCCESS;
    break;
  }
  pthread_mutex_unlock(&lock);
  return status;
}

static int release(uintptr_t at) {
  if (!current()) return INVALID_CONTEXT;
  int status = INVALID_VALUE;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < MOST; i++) {
    if (blocks[i].at != at || !at) continue;
    free((void*)at);
    used -= blocks[i].size;
    blocks[i].at = 0;
    status = SUCCESS;
  }
  pthread_mutex_unlock(&lock);
  return status;
}

API cuInit(unsigned flags) { return flags ? INVALID_VALUE : SUCCESS; }
API cuDriverGetVersion(int* version) { return *version = 12060, SUCCESS; }
API cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
API cuDeviceGet(int* device, int ordinal) { return *device = 0, ordinal ? INVALID_VALUE : SUCCESS; }
API cuDeviceGetName(char* name, int length, int device) {
  (void)device;
  snprintf(name, (size_t)length, "Emulated GPU");
  return SUCCESS;
}
API cuDeviceGetAttribute(int* value, int kind, int device) {
  const char* text = getenv("EMULATED_GPU_INTEGRATED");
  (void)device;
  switch (kind) {
    case 16:
      return *value = 8, SUCCESS; /* multiprocessors */
    case 18:
      return *value = text && *text == '1', SUCCESS; /* integrated */
    case 19:
      return *value = 1, SUCCESS; /* can map host memory */
    case 75:
      return *value = 8, SUCCESS; /* compute capability 8.7 */
    case 76:
      return *value = 7, SUCCESS;
  }
  return *value = 0, SUCCESS;
}
API cuDeviceComputeCapability(int* major, int* minor, int device) {
  (void)device;
  return *major = 8, *minor = 7, SUCCESS;
}
API cuDevicePrimaryCtxRetain(void** context, int device) {
  (void)device;
  return *context = &primary, SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int device) { return device ? INVALID_VALUE : SUCCESS; }
API cuCtxPushCurrent_v2(void* context) {
  if (depth == 16) return INVALID_VALUE;
  return stack[depth++] = context, SUCCESS;
}
API cuCtxPopCurrent_v2(void** context) {
  if (!depth) return INVALID_CONTEXT;
  void* top = stack[--depth];
  if (context) *context = top;
  return SUCCESS;
}
API cuCtxGetCurrent(void** context) { return *context = depth ? stack[depth - 1] : NULL, SUCCESS; }
API cuCtxSetCurrent(void* context) {
  if (depth) depth--;
  if (context) stack[depth++] = context;
  return SUCCESS;
}
API cuCtxGetDevice(int* device) { return *device = 0, current() ? SUCCESS : INVALID_CONTEXT; }
API cuMemGetInfo_v2(size_t* free_, size_t* total_) {
  return *total_ = total(), *free_ = total() - used, current() ? SUCCESS : INVALID_CONTEXT;
}
API cuMemAlloc_v2(uintptr_t* at, size_t size) { return reserve(at, size); }
API cuMemFree_v2(uintptr_t at) { return release(at); }
API cuMemHostAlloc(void** at, size_t size, unsigned flags) {
  (void)flags;
  return reserve((uintptr_t*)at, size);
}
API cuMemAllocHost_v2(void** at, size_t size) { return reserve((uintptr_t*)at, size); }
API cuMemFreeHost(void* at) { return release((uintptr_t)at); }
API cuMemHostGetDevicePointer_v2(uintptr_t* device, void* host, unsigned flags) {
  *device = (uintptr_t)host;
  return flags || !inside((uintptr_t)host, 1) ? INVALID_VALUE : SUCCESS;
}
API cuStreamCreate(void** stream, unsigned flags) {
  (void)flags;
  if (!current()) return INVALID_CONTEXT;
  return *stream = malloc(1), ++streams, SUCCESS;
}
API cuStreamDestroy_v2(void* stream) { return free(stream), --streams, SUCCESS; }
API emulated_streams(void) { return streams; }
API cuStreamSynchronize(void* stream) { return stream && current() ? SUCCESS : INVALID_CONTEXT; }
API cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t size, void* stream) {
  if (!current() || !stream) return INVALID_CONTEXT;
  if (!inside(to, size)) return INVALID_VALUE;
  return memcpy((void*)to, from, size), SUCCESS;
}
API cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t size, void* stream) {
  if (!current() || !stream) return INVALID_CONTEXT;
  if (!inside(from, size)) return INVALID_VALUE;
  return memcpy(to, (const void*)from, size), SUCCESS;
}
API cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t size, void* stream) {
  if (!current() || !stream) return INVALID_CONTEXT;
  if (!inside(to, size) || !inside(from, size)) return INVALID_VALUE;
  return memmove((void*)to, (const void*)from, size), SUCCESS;
}
API cuMemsetD8Async(uintptr_t to, unsigned char value, size_t size, void* stream) {
  if (!current() || !stream) return INVALID_CONTEXT;
  if (!inside(to, size)) return INVALID_VALUE;
  return memset((void*)to, value, size), SUCCESS;
}
API cuGetErrorName(int error, const char** text) {
  return *text = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR", SUCCESS;
}
API cuGetErrorString(int error, const char** text) {
  return *text = error == OUT_OF_MEMORY ? "out of memory" : "an error", SUCCESS;
}

/* cuda-python asks for every call by its name without the version. */
#define PLAIN(name) {#name, (void*)name}
#define SECOND(name) {#name, (void*)name##_v2}
static const struct {
  const char* name;
  void* call;
} calls[] = {
    PLAIN(cuInit),
    PLAIN(cuDriverGetVersion),
    PLAIN(cuDeviceGetCount),
    PLAIN(cuDeviceGet),
    PLAIN(cuDeviceGetName),
    PLAIN(cuDeviceGetAttribute),
    PLAIN(cuDeviceComputeCapability),
    PLAIN(cuDevicePrimaryCtxRetain),
    SECOND(cuDevicePrimaryCtxRelease),
    SECOND(cuCtxPushCurrent),
    SECOND(cuCtxPopCurrent),
    PLAIN(cuCtxGetCurrent),
    PLAIN(cuCtxSetCurrent),
    PLAIN(cuCtxGetDevice),
    SECOND(cuMemGetInfo),
    SECOND(cuMemAlloc),
    SECOND(cuMemFree),
    PLAIN(cuMemHostAlloc),
    SECOND(cuMemAllocHost),
    PLAIN(cuMemFreeHost),
    SECOND(cuMemHostGetDevicePointer),
    PLAIN(cuStreamCreate),
    SECOND(cuStreamDestroy),
    PLAIN(cuStreamSynchronize),
    SECOND(cuMemcpyHtoDAsync),
    SECOND(cuMemcpyDtoHAsync),
    SECOND(cuMemcpyDtoDAsync),
    PLAIN(cuMemsetD8Async),
    PLAIN(cuGetErrorName),
    PLAIN(cuGetErrorString),
};
API cuGetProcAddress_v2(const char* name, void** call, int version, uint64_t flags, int* found) {
  (void)version;
  (void)flags;
  *call = NULL;
  if (!strcmp(name, "cuGetProcAddress")) *call = (void*)cuGetProcAddress_v2;
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
    if (!strcmp(name, calls[i].name)) *call = calls[i].call;
  if (found) *found = *call ? 0 : 1;
  return *call ? SUCCESS : NOT_FOUND;
}

// A caption as CUDA graphs: beginning, step after step until the search is over, end. Where CUDA
// has conditional nodes (12.4 or later) the whole of it is one graph and one launch; else a graph
// of a few steps is launched again until a look at the search says that it is over. The emulation,
// and EDGECAP_DECODER_LOOP=plain, queue the same launches one by one.
#pragma once

#include <cstdlib>

#include "decoder_launches.cuh"

namespace edgecap::gpu {

static_assert(sizeof(LoopHandle::handle) == 8, "as cudaGraphConditionalHandle");

enum Loop { kPlain = 0, kUnrolled = 1, kWhile = 2 };

constexpr int kUnrolledSteps = 4;  // between two looks at the search

// Which loop the environment asks for; the best there is without it.
inline int WantedLoop() {
  const char* wanted = std::getenv("EDGECAP_DECODER_LOOP");
  if (wanted != nullptr && std::strcmp(wanted, "plain") == 0) return kPlain;
  if (wanted != nullptr && std::strcmp(wanted, "unrolled") == 0) return kUnrolled;
  return kWhile;
}

template <typename W, typename C>
cudaError_t BringBack(const Plan& plan, cudaStream_t stream) {
  Launches<W, C> launches(plan, stream);
  const cudaError_t error = launches.End();
  if (error != cudaSuccess) return error;
  return cudaMemcpyAsync(plan.host + plan.host_outcome, plan.outcome, OutcomeBytes(plan.shape()),
                         cudaMemcpyDeviceToHost, stream);
}

inline BeamControl* HostControl(const Plan& plan) {
  return reinterpret_cast<BeamControl*>(plan.host + plan.host_outcome + OutcomeBytes(plan.shape()));
}

inline cudaError_t Look(const Plan& plan, cudaStream_t stream) {
  return cudaMemcpyAsync(HostControl(plan), plan.beams.control, sizeof(BeamControl),
                         cudaMemcpyDeviceToHost, stream);
}

// The launches themselves, with a look at the search after each step.
template <typename W, typename C>
cudaError_t RunPlain(const Plan& plan, cudaStream_t stream) {
  Launches<W, C> launches(plan, stream);
  cudaError_t error = launches.Begin();
  for (int step = 0; error == cudaSuccess && step < plan.shape().limit; ++step) {
    error = launches.Step(LoopHandle{0, 0});
    if (error == cudaSuccess) error = Look(plan, stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    if (error == cudaSuccess && !HostControl(plan)->keep_going) break;
  }
  return error == cudaSuccess ? BringBack<W, C>(plan, stream) : error;
}

#ifdef __CUDACC__

// Records what `work` queues as a graph. Relaxed: kernels may be loaded by their first launch.
template <typename Work>
cudaError_t Capture(cudaStream_t stream, cudaGraph_t* graph, const Work& work) {
  cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed);
  if (error != cudaSuccess) return error;
  error = work();
  const cudaError_t ended = cudaStreamEndCapture(stream, graph);
  return error != cudaSuccess ? error : ended;
}

inline cudaError_t Instantiate(cudaGraph_t graph, void** made) {
  cudaGraphExec_t exec = nullptr;
  const cudaError_t error = cudaGraphInstantiateWithFlags(&exec, graph, 0);
  *made = exec;
  return error;
}

#if EDGECAP_WHILE_NODES
// One graph: beginning -> WHILE (step) -> end. `stream` records and runs nothing.
template <typename W, typename C>
cudaError_t BuildWhile(Plan* plan, cudaStream_t stream) {
  cudaGraph_t whole = nullptr, begin = nullptr, end = nullptr, body = nullptr;
  cudaGraphNode_t first, loop_node, last;
  cudaGraphConditionalHandle handle;
  cudaGraphNodeParams node{};
  cudaError_t error = cudaGraphCreate(&whole, 0);
  const auto then = [&error](cudaError_t next) {
    if (error == cudaSuccess) error = next;
    return error == cudaSuccess;
  };
  if (error == cudaSuccess) {
    then(Capture(stream, &begin, [&] { return Launches<W, C>(*plan, stream).Begin(); }));
  }
  if (error == cudaSuccess) then(cudaGraphAddChildGraphNode(&first, whole, nullptr, 0, begin));
  if (error == cudaSuccess) {
    then(cudaGraphConditionalHandleCreate(&handle, whole, 1, cudaGraphCondAssignDefault));
  }
  if (error == cudaSuccess) {
    node.type = cudaGraphNodeTypeConditional;
    node.conditional.handle = handle;
    node.conditional.type = cudaGraphCondTypeWhile;
    node.conditional.size = 1;
#if CUDART_VERSION >= 13000
    then(cudaGraphAddNode(&loop_node, whole, &first, nullptr, 1, &node));
#else
    then(cudaGraphAddNode(&loop_node, whole, &first, 1, &node));
#endif
  }
  if (error == cudaSuccess) {
    body = node.conditional.phGraph_out[0];
    then(cudaStreamBeginCaptureToGraph(stream, body, nullptr, nullptr, 0,
                                       cudaStreamCaptureModeRelaxed));
  }
  if (error == cudaSuccess) {
    const cudaError_t stepped = Launches<W, C>(*plan, stream).Step(LoopHandle{handle, 1});
    cudaGraph_t captured = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream, &captured);
    then(stepped);
    then(ended);
  }
  if (error == cudaSuccess) {
    then(Capture(stream, &end, [&] { return BringBack<W, C>(*plan, stream); }));
  }
  if (error == cudaSuccess) then(cudaGraphAddChildGraphNode(&last, whole, &loop_node, 1, end));
  if (error == cudaSuccess) then(Instantiate(whole, &plan->graphs[0]));
  if (begin != nullptr) cudaGraphDestroy(begin);
  if (end != nullptr) cudaGraphDestroy(end);
  if (whole != nullptr) cudaGraphDestroy(whole);
  return error;
}
#endif

// Three graphs: beginning, a few steps, end.
template <typename W, typename C>
cudaError_t BuildUnrolled(Plan* plan, cudaStream_t stream) {
  const auto build = [&](int which, const auto& work) {
    cudaGraph_t graph = nullptr;
    cudaError_t error = Capture(stream, &graph, work);
    if (error == cudaSuccess) error = Instantiate(graph, &plan->graphs[which]);
    if (graph != nullptr) cudaGraphDestroy(graph);
    return error;
  };
  cudaError_t error = build(0, [&] { return Launches<W, C>(*plan, stream).Begin(); });
  if (error == cudaSuccess) {
    error = build(1, [&] {
      Launches<W, C> launches(*plan, stream);
      cudaError_t each = cudaSuccess;
      const int steps = std::min(kUnrolledSteps, plan->shape().limit);
      for (int i = 0; each == cudaSuccess && i < steps; ++i) {
        each = launches.Step(LoopHandle{0, 0});
      }
      return each == cudaSuccess ? Look(*plan, stream) : each;
    });
  }
  if (error == cudaSuccess) error = build(2, [&] { return BringBack<W, C>(*plan, stream); });
  return error;
}

inline void DestroyGraphs(Plan* plan) {
  for (void*& graph : plan->graphs) {
    if (graph != nullptr) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
    graph = nullptr;
  }
}

inline cudaError_t RunUnrolled(const Plan& plan, cudaStream_t stream) {
  const auto launch = [&](int which) {
    return cudaGraphLaunch(static_cast<cudaGraphExec_t>(plan.graphs[which]), stream);
  };
  cudaError_t error = launch(0);
  for (int step = 0; error == cudaSuccess && step < plan.shape().limit; step += kUnrolledSteps) {
    error = launch(1);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    if (error == cudaSuccess && !HostControl(plan)->keep_going) break;
  }
  return error == cudaSuccess ? launch(2) : error;
}

// Builds the graphs of the best loop that the library, the driver and the environment allow.
template <typename W, typename C>
cudaError_t Build(Plan* plan, cudaStream_t stream) {
  plan->loop = WantedLoop();
#if EDGECAP_WHILE_NODES
  int driver = 0;
  cudaDriverGetVersion(&driver);
  if (plan->loop == kWhile) {
    if (driver >= 12040 && BuildWhile<W, C>(plan, stream) == cudaSuccess) return cudaSuccess;
    cudaGetLastError();
    DestroyGraphs(plan);
    plan->loop = kUnrolled;
  }
#else
  if (plan->loop == kWhile) plan->loop = kUnrolled;
#endif
  if (plan->loop == kUnrolled) return BuildUnrolled<W, C>(plan, stream);
  return cudaSuccess;
}

template <typename W, typename C>
cudaError_t Run(const Plan& plan, cudaStream_t stream) {
  if (plan.loop == kWhile) {
    return cudaGraphLaunch(static_cast<cudaGraphExec_t>(plan.graphs[0]), stream);
  }
  if (plan.loop == kUnrolled) return RunUnrolled(plan, stream);
  return RunPlain<W, C>(plan, stream);
}

#else

inline void DestroyGraphs(Plan*) {}

template <typename W, typename C>
cudaError_t Build(Plan* plan, cudaStream_t) {
  plan->loop = kPlain;
  return cudaSuccess;
}

template <typename W, typename C>
cudaError_t Run(const Plan& plan, cudaStream_t stream) {
  return RunPlain<W, C>(plan, stream);
}

#endif  // __CUDACC__

}  // namespace edgecap::gpu

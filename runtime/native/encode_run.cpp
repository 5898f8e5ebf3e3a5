#include "encode_run.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "encode_rows.h"

namespace edgecap {
namespace {

constexpr int kMostRows = 32;  // places of a part
constexpr size_t kSlack = 64;
constexpr int kPartsAThread = 4;  // so that a thread that is put aside holds few up

// Of one thread, for one part at a time.
struct Scratch {
  Aligned floats;
  Aligned whole;
  float scales[kMostRows];
  int32_t sums[kMostRows];

  template <typename T>
  static T* Fit(Aligned* memory, size_t count) {
    const size_t bytes = count * sizeof(T) + kSlack;
    if (memory->bytes() < bytes) *memory = Aligned(bytes);
    return memory->as<T>();
  }
};

Scratch& ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

// In whole chunks: both have kSlack bytes more than are asked for.
inline void CopyChunks(const void* from, size_t bytes, void* to) {
  for (size_t i = 0; i < bytes; i += kSlack) {
    std::memcpy(static_cast<char*>(to) + i, static_cast<const char*>(from) + i, kSlack);
  }
}

// A place's inputs, kernel row by kernel row; `outside` where the kernel leaves the map. What lies
// behind the patch is written over, too: patches are copied in order.
template <typename T>
void CopyPatch(const Convolution& c, const T* map, int place, T outside, T* patch) {
  const int y = place / c.out.width * c.stride_height - c.top;
  const int x = place % c.out.width * c.stride_width - c.left;
  const int channels = c.in.channels;
  const int before = std::min(c.kernel_width, std::max(0, -x));
  const int after = std::min(c.kernel_width - before, std::max(0, x + c.kernel_width - c.in.width));
  const int inside = c.kernel_width - before - after;
  if (inside == c.kernel_width && y >= 0 && y + c.kernel_height <= c.in.height) {
    const T* from = map + (static_cast<size_t>(y) * c.in.width + x) * channels;
    const size_t bytes = sizeof(T) * inside * channels;
    for (int row = 0; row < c.kernel_height; ++row) {
      CopyChunks(from, bytes, patch);
      from += static_cast<size_t>(c.in.width) * channels;
      patch += inside * channels;
    }
    return;
  }
  for (int row = y; row < y + c.kernel_height; ++row) {
    if (row < 0 || row >= c.in.height) {
      std::fill(patch, patch + c.kernel_width * channels, outside);
    } else {
      const T* from = map + (static_cast<size_t>(row) * c.in.width + (x + before)) * channels;
      std::fill(patch, patch + before * channels, outside);
      std::memcpy(patch + before * channels, from, sizeof(T) * inside * channels);
      std::fill(patch + (before + inside) * channels, patch + c.kernel_width * channels, outside);
    }
    patch += c.kernel_width * channels;
  }
}

}  // namespace

EncoderRun::EncoderRun(const EncoderModel& model, StepPool& pool, const WholeKernel& kernel)
    : model_(model), pool_(pool), kernel_(kernel), head_(model, pool, kernel) {
  Plan();
  if (model_.box > 0) {
    boxes_ = Aligned(sizeof(float) * model_.picture.values() / model_.box / model_.box);
  }
}

// Maps share memory: one that nothing reads any more gives its own to the next.
void EncoderRun::Plan() {
  const int count = static_cast<int>(model_.convolutions.size());
  maps_.push_back({model_.picture, {}, 0});
  std::vector<int> last(count + 1, -1);  // the convolution that reads a map last
  for (int i = 0; i < count; ++i) {
    const Convolution& c = model_.convolutions[i];
    maps_.push_back({c.out, c.bytes, 0});
    for (int map : {c.source, c.residual}) {
      if (map < -1 || map >= i) throw std::invalid_argument("a map is read before it is made");
      last[map + 1] = i;
    }
    const MapSize& in = maps_[c.source + 1].size;
    if (in.height != c.in.height || in.width != c.in.width || in.channels != c.in.channels) {
      throw std::invalid_argument("a convolution reads a map of another size");
    }
    if (c.residual >= 0 && maps_[c.residual + 1].size.values() != c.out.values()) {
      throw std::invalid_argument("a residual has another size");
    }
  }
  const auto keep = [&](int map) {
    if (map >= count) throw std::invalid_argument("a result is no map");
    if (map >= 0) last[map + 1] = count;
  };
  for (const HeadResult& result : model_.results) keep(result.map);
  for (const HeadStep& step : model_.steps) {
    if (step.kind == HeadStep::kMap) keep(step.from[0]);
  }
  std::vector<size_t> sizes;
  std::vector<int> free;
  const auto place = [&](Map* map) {
    const size_t bytes = map->size.values() * (map->bytes ? 1 : sizeof(float));
    int best = -1;
    for (int slot : free) {
      if (best < 0 || (sizes[slot] >= bytes) > (sizes[best] >= bytes) ||
          ((sizes[slot] >= bytes) == (sizes[best] >= bytes) && sizes[slot] < sizes[best])) {
        best = slot;
      }
    }
    if (best < 0) {
      best = static_cast<int>(sizes.size());
      sizes.push_back(0);
    } else {
      free.erase(std::find(free.begin(), free.end(), best));
    }
    sizes[best] = std::max(sizes[best], bytes);
    map->slot = best;
  };
  place(&maps_[0]);
  for (int i = 0; i < count; ++i) {
    place(&maps_[i + 1]);
    for (int map = 0; map <= i + 1; ++map) {
      if (last[map] == i || (map == i + 1 && last[map] < 0)) free.push_back(maps_[map].slot);
    }
  }
  for (size_t bytes : sizes) slots_.emplace_back(bytes + kSlack);
}

void EncoderRun::Run(const uint8_t* pixels, const std::vector<float*>& results) {
  const StepPool::Awake awake(pool_);
  const MapSize& picture = model_.picture;
  pool_.Run(pool_.threads() * kPartsAThread, [&](int part) {
    const int parts = pool_.threads() * kPartsAThread;
    const int from = static_cast<int>(static_cast<int64_t>(picture.places()) * part / parts);
    const int to = static_cast<int>(static_cast<int64_t>(picture.places()) * (part + 1) / parts);
    NormalisePixels(pixels + 3 * from, to - from, model_.scale.data(), model_.shift.data(),
                    At<float>(-1) + 3 * from);
  });
  for (size_t i = 0; i < model_.convolutions.size(); ++i) {
    if (model_.convolutions[i].depthwise()) {
      Depthwise(static_cast<int>(i));
    } else {
      Dense(static_cast<int>(i));
    }
  }
  if (model_.box > 0) Boxes(pixels);
  head_.Run([this](int map) { return map < 0 ? boxes_.as<float>() : Floats(map); });
  for (size_t i = 0; i < results.size(); ++i) {
    const HeadResult& result = model_.results[i];
    if (result.map >= 0) {
      GiveOut(result.map, results[i]);
    } else {
      head_.GiveOut(result, results[i]);
    }
  }
}

void EncoderRun::Boxes(const uint8_t* pixels) {
  const int box = model_.box;
  const int width = model_.picture.width;
  pool_.Run(model_.picture.height / box, [&](int y) {
    BoxRow(pixels + static_cast<size_t>(y) * box * width * 3, width, box, model_.box_scale.data(),
           model_.box_shift.data(),
           boxes_.as<float>() + static_cast<size_t>(y) * (width / box) * 3);
  });
}

// A map in floats; of one in bytes a copy.
const float* EncoderRun::Floats(int at) {
  const Map& map = Of(at);
  if (!map.bytes) return At<float>(at);
  wide_.resize(model_.convolutions.size());
  std::vector<float>& wide = wide_[at];
  wide.resize(map.size.values());
  WidenBytes(At<int8_t>(at), static_cast<int>(wide.size()), map.bytes, wide.data());
  return wide.data();
}

// [places, channels] becomes [channels, places].
void EncoderRun::GiveOut(int at, float* result) {
  const Map& map = Of(at);
  const int places = map.size.places();
  pool_.Run(Blocks(map.size.channels), [&](int block) {
    const int first = block * kLanes;
    const int channels = std::min(kLanes, map.size.channels - first);
    float wide[kLanes];
    for (int place = 0; place < places; ++place) {
      const size_t start = static_cast<size_t>(place) * map.size.channels + first;
      const float* row = wide;
      if (map.bytes) {
        WidenBytes(At<int8_t>(at) + start, channels, map.bytes, wide);
      } else {
        row = At<float>(at) + start;
      }
      for (int c = 0; c < channels; ++c) {
        result[static_cast<size_t>(first + c) * places + place] = row[c];
      }
    }
  });
}

EncoderRun::Inputs EncoderRun::Gather(int at, int first, int count) {
  const Convolution& c = model_.convolutions[at];
  const Matrix& m = c.matrix;
  const MapBytes bytes = Of(c.source).bytes;
  Scratch& scratch = ThreadScratch();
  Inputs inputs;
  if (!bytes) {
    const float* map = At<float>(c.source);
    if (c.pointwise()) {
      inputs.floats = map + static_cast<size_t>(first) * m.inputs;
    } else {
      float* rows = Scratch::Fit<float>(&scratch.floats, static_cast<size_t>(kMostRows) * m.inputs);
      for (int r = 0; r < count; ++r) {
        CopyPatch(c, map, first + r, 0.0f, rows + static_cast<size_t>(r) * m.inputs);
      }
      inputs.floats = rows;
    }
    inputs.stride = m.inputs;
    if (m.precision != Precision::kInt8) return inputs;
  } else if (c.pointwise() && m.depth == m.inputs) {
    inputs.whole = At<int8_t>(c.source) + static_cast<size_t>(first) * m.inputs;
  }
  inputs.scales = scratch.scales;
  inputs.sums = scratch.sums;
  inputs.stride = m.depth;
  int8_t* whole = nullptr;
  if (inputs.whole == nullptr) {
    whole = Scratch::Fit<int8_t>(&scratch.whole, static_cast<size_t>(kMostRows) * m.depth);
    inputs.whole = whole;
  }
  for (int r = 0; r < count; ++r) {
    const size_t start = static_cast<size_t>(r) * m.depth;
    if (!bytes) {
      const float* row = inputs.floats + static_cast<size_t>(r) * m.inputs;
      const WholeRow made = Quantise(row, m.inputs, m.depth, whole + start);
      scratch.scales[r] = made.scale;
      scratch.sums[r] = made.sum;
      continue;
    }
    if (whole != nullptr) {
      CopyPatch(c, At<int8_t>(c.source), first + r, static_cast<int8_t>(bytes.zero), whole + start);
      std::fill(whole + start + m.inputs, whole + start + m.depth, int8_t{0});
    }
    scratch.scales[r] = bytes.scale;
    scratch.sums[r] = m.biased ? kernel_.sum(inputs.whole + start, m.depth) : 0;
  }
  return inputs;
}

void EncoderRun::Dense(int at) {
  const Convolution& c = model_.convolutions[at];
  const Matrix& m = c.matrix;
  const int places = c.out.places();
  const int share = places / (pool_.threads() * kPartsAThread) / kTileRows * kTileRows;
  const int rows = std::min(kMostRows, std::max(kTileRows, share));
  pool_.Run((places + rows - 1) / rows, [&](int part) {
    const int first = part * rows;
    const int count = std::min(rows, places - first);
    const Inputs inputs = Gather(at, first, count);
    alignas(64) int32_t whole[kTileRows * kTileOutputs];
    alignas(64) float sums[kTileRows * kTileOutputs];
    for (int block = 0; block < m.blocks(); block += kTileBlocks) {
      const int blocks = std::min(kTileBlocks, m.blocks() - block);
      const int channel = block * kLanes;
      const int channels = std::min(kTileOutputs, m.outputs - channel);
      for (int row = 0; row < count; row += kTileRows) {
        const int here = std::min(kTileRows, count - row);
        const size_t start = static_cast<size_t>(row) * inputs.stride;
        TileEnd end = End(at, static_cast<size_t>(first + row) * m.outputs + channel);
        end.bias = m.bias.data() + channel;
        if (inputs.whole == nullptr) {
          FloatTile(m, block, blocks, inputs.floats + start, inputs.stride, here, sums);
          EndTile(sums, here, channels, m.outputs, end);
          continue;
        }
        const uint8_t* weights = m.weights.as<uint8_t>() + static_cast<size_t>(channel) * m.depth;
        const int8_t* x = inputs.whole + start;
        if (!c.firsts.empty()) {
          kernel_.more(weights, m.depth / 4, blocks, x, inputs.stride, c.firsts.data() + channel,
                       here, whole);
        } else {
          kernel_.product(weights, m.depth / 4, blocks, x, inputs.stride, inputs.sums + row, here,
                          whole);
        }
        end.scales = m.scales.data() + channel;
        end.row_scales = inputs.scales + row;
        EndTile(whole, here, channels, m.outputs, end);
      }
    }
  });
}

// Where the sums of a convolution go that begin with value `to` of its map.
TileEnd EncoderRun::End(int at, size_t to) {
  const Convolution& c = model_.convolutions[at];
  TileEnd end;
  end.least = c.least;
  end.most = c.most;
  end.rounded = c.rounded;
  end.scale = c.bytes;
  if (c.bytes) {
    end.bytes = At<int8_t>(at) + to;
  } else {
    end.floats = At<float>(at) + to;
  }
  if (c.residual < 0) return end;
  end.residual_scale = Of(c.residual).bytes;
  if (end.residual_scale) {
    end.residual_bytes = At<int8_t>(c.residual) + to;
  } else {
    end.residual = At<float>(c.residual) + to;
  }
  return end;
}

void EncoderRun::Depthwise(int at) {
  const Convolution& c = model_.convolutions[at];
  const MapBytes bytes = Of(c.source).bytes;
  const int channels = c.in.channels;
  pool_.Run(c.out.height, [&](int y) {
    Scratch& scratch = ThreadScratch();
    const int top = y * c.stride_height - c.top;
    const int from = std::max(0, -top);
    const int to = std::min(c.kernel_height, c.in.height - top);
    // Of a map in bytes the rows under the kernel are widened first.
    const float* map = At<float>(c.source);
    ptrdiff_t origin = static_cast<ptrdiff_t>(top) * c.in.width;
    if (bytes) {
      const size_t row = static_cast<size_t>(c.in.width) * channels;
      float* wide = Scratch::Fit<float>(&scratch.floats, row * c.kernel_height);
      for (int ky = from; ky < to; ++ky) {
        WidenBytes(At<int8_t>(c.source) + (top + ky) * row, static_cast<int>(row), bytes,
                   wide + ky * row);
      }
      map = wide;
      origin = 0;
    }
    const size_t row = static_cast<size_t>(y) * c.out.width * channels;
    // Where the whole kernel is inside, most often, and nothing else is to be done.
    const bool plain = !c.rounded && !c.bytes && c.residual < 0;
    int first = 0;
    int last = 0;
    if (plain && from == 0 && to == c.kernel_height && IsRow3(c)) {
      first = (c.left + c.stride_width - 1) / c.stride_width;
      last = (c.in.width - c.kernel_width + c.left) / c.stride_width + 1;
      last = std::max(first, std::min(last, c.out.width));
      DepthwiseRow3(c, map + origin * channels, first, last, At<float>(at) + row);
    }
    float* value = Scratch::Fit<float>(&scratch.whole, channels);
    for (int x = 0; x < c.out.width; ++x) {
      if (x == first) x = last;
      if (x == c.out.width) break;
      const int column = x * c.stride_width - c.left;
      DepthwisePlace(c, map + (origin + column) * channels, from, to, std::max(0, -column),
                     std::min(c.kernel_width, c.in.width - column), value);
      for (int channel = 0; channel < channels; channel += kTileOutputs) {
        EndTile(value + channel, 1, std::min(kTileOutputs, channels - channel), channels,
                End(at, row + static_cast<size_t>(x) * channels + channel));
      }
    }
  });
}

}  // namespace edgecap

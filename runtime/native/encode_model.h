// Convolutional encoders on the CPU: convolutions in order, each with what follows it.
//
// Maps are [height, width, channels], in floats or in bytes with one scale. Whole numbers are
// summed exactly and floats in a fixed order, as in step_kernels.h, so every processor gives the
// same bits.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "step_kernels.h"
#include "step_rows.h"

namespace edgecap {

struct MapSize {
  int height = 0;
  int width = 0;
  int channels = 0;
  int places() const { return height * width; }
  size_t values() const { return static_cast<size_t>(places()) * channels; }
};

// Of a map in bytes: value = scale * (byte - zero). A scale of 0 means that the map is in floats.
struct MapBytes {
  float scale = 0.0f;
  int zero = 0;
  explicit operator bool() const { return scale > 0.0f; }
};

// out = bound(rounded(convolution(source) + bias) + residual), where it has them. A map's number is
// that of the convolution that gives it.
struct Convolution {
  int source = -1;    // -1 : the picture
  int residual = -1;  // a map of this one's size; -1 : none
  // What is less or more becomes these: 0 and infinity for ReLU, 0 and 6 for ReLU6.
  float least = -std::numeric_limits<float>::infinity();
  float most = std::numeric_limits<float>::infinity();
  int kernel_height = 1;
  int kernel_width = 1;
  int stride_height = 1;
  int stride_width = 1;
  int top = 0;
  int left = 0;
  MapSize in;
  MapSize out;
  MapBytes rounded;  // of what its sums are rounded to before all that follows
  MapBytes bytes;    // of what it gives

  // All channels with all: [out, kernel_height * kernel_width * in] in that order. In int8 the
  // inputs of a place get a scale of their own, or that of a source in bytes, whose zero point is
  // in the matrix's bias.
  Matrix matrix;
  std::vector<int32_t> firsts;  // where the kernel's function `more` multiplies, what it wants
  // A channel alone: [kernel_height * kernel_width, channels], and a bias a channel.
  std::vector<float> taps;
  std::vector<float> bias;

  // Throws std::invalid_argument for a kernel that leaves its map.
  void Check() const;
  // Makes the matrix of weights [out, kernel_height * kernel_width * in]. source : of that map;
  // whole : in int8, else in float32
  void Pack(const float* weights, const float* biases, MapBytes source, bool whole,
            const WholeKernel& kernel);

  bool depthwise() const { return !taps.empty(); }
  // Whether a place's inputs lie together in its source.
  bool pointwise() const {
    return kernel_height == 1 && kernel_width == 1 && stride_height == 1 && stride_width == 1 &&
           top == 0 && left == 0;
  }
};

// A step after the convolutions gives a matrix in floats; its number is its place among the steps.
struct HeadStep {
  enum Kind {
    kMap,        // values of a map, `index` in it for each
    kGather,     // the same of a matrix
    kMean,       // of a matrix's rows
    kProduct,    // with `matrix`, activated, and on top of from[1] where there is one
    kConcat,     // rows of several
    kNorm,       // LayerNorm
    kTable,      // `weight` is added
    kAttention,  // of a matrix [rows, 3 * width] of queries, keys and values, `heads` of each
  };
  Kind kind = kMap;
  int rows = 0;
  int width = 0;
  std::vector<int> from;
  std::vector<int32_t> index;  // empty : all, as they lie
  Matrix matrix;
  Activation activation = Activation::kNone;
  std::vector<float> weight;
  std::vector<float> bias;
  float eps = 0.0f;
  int heads = 0;
  float scale = 1.0f;

  size_t values() const { return static_cast<size_t>(rows) * width; }
};

// What is given out: a map as [channels, height, width], or values of a step.
struct HeadResult {
  int map = -1;
  int step = -1;               // where it is no map
  std::vector<int32_t> index;  // empty : all, as they lie
};

struct EncoderModel {
  MapSize picture;           // channels = 3
  std::vector<float> scale;  // [3] of a picture's bytes, and what is added then
  std::vector<float> shift;
  // The means of the picture's boxes of box * box pixels, for the steps; 0 : none read them.
  int box = 0;
  std::vector<float> box_scale;
  std::vector<float> box_shift;
  std::vector<Convolution> convolutions;
  std::vector<HeadStep> steps;
  std::vector<HeadResult> results;

  // Values of a result.
  size_t values(const HeadResult& result) const;

  size_t bytes() const;
};

}  // namespace edgecap

// What an encoder does with the rows of a map besides products.
#pragma once

#include <cstdint>
#include <limits>

#include "encode_model.h"

namespace edgecap {

// What becomes of a tile of sums: `rows` places of `count` channels, places `stride` channels apart
// in the residual and in what is written.
struct TileEnd {
  const float* scales = nullptr;  // of whole sums: scales[channel] * row_scales[place]
  const float* row_scales = nullptr;
  const float* bias = nullptr;  // null where it is in the sums
  MapBytes rounded;             // of the sums, before all that follows
  const float* residual = nullptr;
  const int8_t* residual_bytes = nullptr;  // one of the two, or none
  MapBytes residual_scale;
  float least = -std::numeric_limits<float>::infinity();
  float most = std::numeric_limits<float>::infinity();
  MapBytes scale;           // of what is written, to
  int8_t* bytes = nullptr;  // one of these two
  float* floats = nullptr;
};

// sums : [rows, 64]; count <= 64
void EndTile(const int32_t* sums, int rows, int count, int stride, const TileEnd& end);
void EndTile(const float* sums, int rows, int count, int stride, const TileEnd& end);

void WidenBytes(const int8_t* bytes, int count, MapBytes scale, float* out);

// A picture's bytes, three channels: value * scale + shift.
void NormalisePixels(const uint8_t* pixels, int count, const float* scale, const float* shift,
                     float* out);

// A row of boxes of box * box pixels: their means, times scale plus shift. `width` pixels lie
// beside each other; out [width / box, 3]
void BoxRow(const uint8_t* pixels, int width, int box, const float* scale, const float* shift,
            float* out);

// One place of a convolution of each channel alone: out [channels] = bias + the taps of rows `from`
// to `to` and columns `left` to `right` of the kernel, in order. corner : the place under the
// kernel's first tap, which may lie outside of the map
void DepthwisePlace(const Convolution& c, const float* corner, int from, int to, int left,
                    int right, float* out);

// Places `first` to `last` of a row of such a convolution of 3 x 3 whose kernel is inside of the
// map there, with the activation. map : the row and column 0 under the kernel's first row; out : of
// the row's first place
void DepthwiseRow3(const Convolution& c, const float* map, int first, int last, float* out);
bool IsRow3(const Convolution& c);

}  // namespace edgecap

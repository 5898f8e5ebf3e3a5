// Random numbers, the same on every machine, and a digest of results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

inline uint32_t state = 1;
inline float Random() {
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
}

inline std::vector<float> Values(size_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = Random();
  return values;
}

// FNV-1a
inline uint64_t digest = 14695981039346656037u;
inline void Digest(const void* data, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    digest = (digest ^ static_cast<const uint8_t*>(data)[i]) * 1099511628211u;
  }
}

#include "cider.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace edgecap {
namespace {

// The finaliser of splitmix64: every bit of the input moves every bit of the output.
uint64_t Mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

uint64_t Extend(uint64_t hash, int64_t token) {
  hash = Mix(hash + 0x9e3779b97f4a7c15ULL + Mix(static_cast<uint64_t>(token)));
  return hash ? hash : 1;  // 0 marks an empty slot
}

// CIDEr-D calls the number of bigrams a caption's length.
int64_t Bigrams(int64_t tokens) { return std::max<int64_t>(0, tokens - 1); }

}  // namespace

uint32_t NgramTable::Find(uint64_t hash) const {
  if (keys_.empty()) return kNone;
  const size_t mask = keys_.size() - 1;
  for (size_t slot = hash & mask; keys_[slot]; slot = (slot + 1) & mask) {
    if (keys_[slot] == hash) return ids_[slot];
  }
  return kNone;
}

uint32_t NgramTable::Intern(uint64_t hash) {
  if ((hashes_.size() + 1) * 2 > keys_.size()) Grow();
  const size_t mask = keys_.size() - 1;
  size_t slot = hash & mask;
  for (; keys_[slot]; slot = (slot + 1) & mask) {
    if (keys_[slot] == hash) return ids_[slot];
  }
  if (hashes_.size() >= kNone) throw std::invalid_argument("more than 4 billion n-grams");
  keys_[slot] = hash;
  ids_[slot] = static_cast<uint32_t>(hashes_.size());
  hashes_.push_back(hash);
  return ids_[slot];
}

void NgramTable::Grow() {
  const size_t size = std::max<size_t>(1024, keys_.size() * 2);
  keys_.assign(size, 0);
  ids_.assign(size, 0);
  for (size_t id = 0; id < hashes_.size(); ++id) {
    size_t slot = hashes_[id] & (size - 1);
    while (keys_[slot]) slot = (slot + 1) & (size - 1);
    keys_[slot] = hashes_[id];
    ids_[slot] = static_cast<uint32_t>(id);
  }
}

CiderD::CiderD(const std::vector<int64_t>& tokens, const std::vector<int64_t>& lengths,
               const std::vector<int64_t>& counts) {
  constexpr int64_t kMost = std::numeric_limits<uint16_t>::max();
  const auto total = static_cast<int64_t>(tokens.size());
  int64_t used = 0;
  for (const int64_t length : lengths) {
    if (length < 0 || length > kMost || length > total - used) {
      throw std::invalid_argument("a reference has " + std::to_string(length) +
                                  " tokens; give 0 to 65535, all of them in tokens");
    }
    used += length;
  }
  int64_t references = 0;
  for (const int64_t count : counts) {
    if (count < 1 || count > kMost) {
      throw std::invalid_argument("an image has " + std::to_string(count) +
                                  " references; give 1 to 65535");
    }
    references += count;
  }
  if (counts.empty() || used != total || references != static_cast<int64_t>(lengths.size())) {
    throw std::invalid_argument(
        "references of at least one image are needed, and lengths and "
        "counts that add up");
  }

  reference_length_ = lengths;
  reference_begin_.push_back(0);
  posting_begin_.push_back(0);
  std::vector<Item> items;
  const int64_t* next = tokens.data();
  size_t reference = 0;
  for (const int64_t count : counts) {
    const size_t begin = postings_.size();
    for (int64_t r = 0; r < count; ++r, ++reference) {
      Ngrams(next, lengths[reference], &items);
      next += lengths[reference];
      for (size_t i = 0; i < items.size();) {
        size_t end = i + 1;
        while (end < items.size() && items[end].hash == items[i].hash) ++end;
        const uint32_t ngram = table_.Intern(items[i].hash);
        if (ngram == orders_.size()) orders_.push_back(static_cast<uint8_t>(items[i].order));
        postings_.push_back({ngram, static_cast<uint16_t>(r), static_cast<uint16_t>(end - i)});
        i = end;
      }
    }
    std::sort(postings_.begin() + begin, postings_.end(), [](const Posting& a, const Posting& b) {
      return a.ngram != b.ngram ? a.ngram < b.ngram : a.reference < b.reference;
    });
    reference_begin_.push_back(reference);
    posting_begin_.push_back(postings_.size());
  }

  frequencies_.assign(table_.size(), 0);
  for (size_t image = 0; image < images(); ++image) {
    for (size_t i = posting_begin_[image]; i < posting_begin_[image + 1]; ++i) {
      const bool first = i == posting_begin_[image] || postings_[i - 1].ngram != postings_[i].ngram;
      frequencies_[postings_[i].ngram] += first;
    }
  }
  documents_ = static_cast<int64_t>(images());
  Weigh();
}

void CiderD::SetDocumentFrequency(const uint64_t* hashes, const int64_t* frequencies, size_t size,
                                  int64_t documents) {
  for (size_t j = 0; j < size; ++j) {
    if (!hashes[j] || frequencies[j] < 0 || frequencies[j] > documents) {
      throw std::invalid_argument("a document frequency of " + std::to_string(frequencies[j]) +
                                  " in " + std::to_string(documents) + " images");
    }
  }
  if (documents < 1) throw std::invalid_argument("document frequencies of no images");
  std::fill(frequencies_.begin(), frequencies_.end(), 0);
  for (size_t j = 0; j < size; ++j) {
    const uint32_t ngram = table_.Intern(hashes[j]);
    if (ngram == frequencies_.size()) frequencies_.push_back(0);
    frequencies_[ngram] = frequencies[j];
  }
  documents_ = documents;
  Weigh();
}

void CiderD::Weigh() {
  log_documents_ = std::log(static_cast<double>(documents_));
  idf_.resize(frequencies_.size());
  for (size_t id = 0; id < idf_.size(); ++id) {
    idf_[id] = log_documents_ - std::log(std::max(1.0, static_cast<double>(frequencies_[id])));
  }
  inverse_.assign(reference_length_.size(), {});
  for (size_t image = 0; image < images(); ++image) {
    for (size_t i = posting_begin_[image]; i < posting_begin_[image + 1]; ++i) {
      const Posting& p = postings_[i];
      const double weight = p.count * idf_[p.ngram];
      inverse_[reference_begin_[image] + p.reference][orders_[p.ngram]] += weight * weight;
    }
  }
  for (auto& norms : inverse_) {
    for (double& value : norms) value = value > 0.0 ? 1.0 / std::sqrt(value) : 0.0;
  }
}

void CiderD::Ngrams(const int64_t* tokens, int64_t length, std::vector<Item>* items) {
  items->clear();
  for (int64_t start = 0; start < length; ++start) {
    uint64_t hash = 0;
    for (int order = 0; order < kOrders && start + order < length; ++order) {
      hash = Extend(hash, tokens[start + order]);
      items->push_back({hash, order});
    }
  }
  std::sort(items->begin(), items->end(),
            [](const Item& a, const Item& b) { return a.hash < b.hash; });
}

void CiderD::Score(const int64_t* images, const int64_t* tokens, size_t width,
                   const int64_t* lengths, size_t rows, double* scores) const {
  for (size_t n = 0; n < rows; ++n) {
    if (images[n] < 0 || static_cast<uint64_t>(images[n]) >= this->images()) {
      throw std::out_of_range("image " + std::to_string(images[n]) + " of row " +
                              std::to_string(n) + "; there are images 0 to " +
                              std::to_string(this->images() - 1));
    }
    if (lengths[n] < 0 || static_cast<uint64_t>(lengths[n]) > width) {
      throw std::out_of_range("length " + std::to_string(lengths[n]) + " of row " +
                              std::to_string(n) + "; rows have " + std::to_string(width) +
                              " tokens");
    }
  }
  std::vector<Item> items;
  std::vector<double> penalties;
  for (size_t n = 0; n < rows; ++n) {
    Ngrams(tokens + n * width, lengths[n], &items);
    scores[n] = ScoreOne(static_cast<size_t>(images[n]), lengths[n], items, &penalties);
  }
}

double CiderD::ScoreOne(size_t image, int64_t length, const std::vector<Item>& items,
                        std::vector<double>* penalties) const {
  const size_t first = reference_begin_[image];
  const size_t references = reference_begin_[image + 1] - first;
  penalties->resize(references);
  for (size_t r = 0; r < references; ++r) {
    const auto delta = static_cast<double>(Bigrams(length) - Bigrams(reference_length_[first + r]));
    (*penalties)[r] = std::exp(-delta * delta / (2 * kSigma * kSigma));
  }
  const Posting* const begin = postings_.data() + posting_begin_[image];
  const Posting* const end = postings_.data() + posting_begin_[image + 1];
  double squares[kOrders] = {};
  double similarity[kOrders] = {};
  for (size_t i = 0; i < items.size();) {
    size_t after = i + 1;
    while (after < items.size() && items[after].hash == items[i].hash) ++after;
    const auto count = static_cast<double>(after - i);
    const int order = items[i].order;
    const uint32_t ngram = table_.Find(items[i].hash);
    const double idf = ngram == NgramTable::kNone ? log_documents_ : idf_[ngram];
    const double weight = count * idf;
    squares[order] += weight * weight;
    i = after;
    if (ngram == NgramTable::kNone) continue;
    const Posting* p = std::lower_bound(
        begin, end, ngram, [](const Posting& a, uint32_t wanted) { return a.ngram < wanted; });
    for (; p != end && p->ngram == ngram; ++p) {
      const double other = p->count * idf;
      similarity[order] += std::min(weight, other) * other * inverse_[first + p->reference][order] *
                           (*penalties)[p->reference];
    }
  }
  double score = 0.0;
  for (int order = 0; order < kOrders; ++order) {
    if (squares[order] > 0.0) score += similarity[order] / std::sqrt(squares[order]);
  }
  return 10.0 * score / (kOrders * static_cast<double>(references));
}

}  // namespace edgecap

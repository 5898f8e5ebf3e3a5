// CIDEr-D (Vedantam et al., CVPR 2015) of captions given as token ids. No Python.
//
// Everything that hangs on the references alone is computed once: document frequencies, the norms
// of the references and, per image, a sorted list of the n-grams that its references hold. A
// candidate then costs one table look-up and one binary search per n-gram.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace edgecap {

// Hash of an n-gram -> a dense number. Linear probing; a slot of hash 0 is empty.
class NgramTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  uint32_t Find(uint64_t hash) const;
  uint32_t Intern(uint64_t hash);
  size_t size() const { return hashes_.size(); }
  uint64_t hash(size_t id) const { return hashes_[id]; }

 private:
  void Grow();

  std::vector<uint64_t> keys_;
  std::vector<uint32_t> ids_;
  std::vector<uint64_t> hashes_;  // by id
};

class CiderD {
 public:
  static constexpr int kOrders = 4;
  static constexpr double kSigma = 6.0;

  // tokens: the references one after the other; lengths[r]: tokens of reference r; counts[i]:
  // references of image i. Throws std::invalid_argument when they contradict each other.
  CiderD(const std::vector<int64_t>& tokens, const std::vector<int64_t>& lengths,
         const std::vector<int64_t>& counts);

  // Replaces the document frequencies: hashes[j] occurs in frequencies[j] of `documents` images,
  // every other n-gram in none.
  void SetDocumentFrequency(const uint64_t* hashes, const int64_t* frequencies, size_t size,
                            int64_t documents);

  // scores[n], 0 to 10, of the first lengths[n] tokens of row n against the references of
  // images[n]. Throws std::out_of_range before anything is written.
  void Score(const int64_t* images, const int64_t* tokens, size_t width, const int64_t* lengths,
             size_t rows, double* scores) const;

  size_t images() const { return posting_begin_.size() - 1; }
  int64_t documents() const { return documents_; }
  size_t ngrams() const { return table_.size(); }
  uint64_t hash(size_t id) const { return table_.hash(id); }
  int64_t frequency(size_t id) const { return frequencies_[id]; }

 private:
  struct Posting {
    uint32_t ngram;
    uint16_t reference;  // within its image
    uint16_t count;
  };
  struct Item {
    uint64_t hash;
    int order;
  };

  static void Ngrams(const int64_t* tokens, int64_t length, std::vector<Item>* items);
  void Weigh();
  double ScoreOne(size_t image, int64_t length, const std::vector<Item>& items,
                  std::vector<double>* penalties) const;

  NgramTable table_;
  std::vector<int64_t> frequencies_;                  // by n-gram
  std::vector<double> idf_;                           // by n-gram
  std::vector<uint8_t> orders_;                       // by n-gram
  std::vector<Posting> postings_;                     // by image, then n-gram, then reference
  std::vector<size_t> posting_begin_;                 // [images + 1]
  std::vector<size_t> reference_begin_;               // [images + 1]
  std::vector<int64_t> reference_length_;             // tokens
  std::vector<std::array<double, kOrders>> inverse_;  // one over a reference's norms, 0 for 0
  int64_t documents_ = 0;
  double log_documents_ = 0.0;
};

}  // namespace edgecap

// The two parts of METEOR 1.5 (Denkowski and Lavie, WMT 2014) that take time: reading the
// paraphrase table and the search for the best alignment. No Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace edgecap {

// `length` words of the reference from `start` on may stand for `other_length` words of the
// candidate from `other_start` on.
struct WordMatch {
  int start;
  int length;
  int other_start;
  int other_length;
  bool exact;
};

// Picks matches that share no word, and returns their indexes from left to right in the reference.
//
// A beam search over the reference: most words covered with exact ones counting twice, then fewest
// chunks, then least crossing. Matches must come sorted by start; those of one start are tried in
// the order given. Throws std::invalid_argument when a match lies outside of the words.
std::vector<int> Align(int reference_words, int candidate_words,
                       const std::vector<WordMatch>& matches, int beams = 40);

// The phrases of one caption. Phrases are named by the FNV-1a hash of their words joined by spaces.
struct CaptionPhrases {
  struct Place {
    uint64_t phrase;
    int start;
    int length;
  };
  struct Source {
    int start;
    int length;
    uint32_t entry;  // of the table
  };
  std::vector<Place> places;    // every phrase, sorted by phrase, then from left to right
  std::vector<Source> sources;  // those with paraphrases, left to right, short before long
};

// Which phrases may stand for a phrase.
class ParaphraseTable {
 public:
  static constexpr int kMaxWords = 7;

  // Takes lines of three: a probability, a phrase, a phrase of the same meaning. Text comes in
  // pieces cut anywhere; Finish() throws std::invalid_argument unless it ended with an entry.
  void Feed(const char* text, size_t size);
  void Finish();

  // Pairs read.
  size_t size() const { return paraphrases_.size(); }

  CaptionPhrases Find(const std::vector<std::string>& words) const;

  // Places in `b` of paraphrases of phrases of `a`; start and length lie in `a`.
  std::vector<WordMatch> Match(const CaptionPhrases& a, const CaptionPhrases& b) const;

 private:
  uint32_t Entry(uint64_t phrase) const;
  uint32_t Intern(uint64_t phrase);

  std::vector<uint64_t> keys_;  // linear probing, 0 is empty
  std::vector<uint32_t> ids_;
  std::vector<uint32_t> entries_;      // by pair in the order of the file; empty after Finish()
  std::vector<uint64_t> paraphrases_;  // by entry, then in the order of the file
  std::vector<uint32_t> begin_;        // by entry, and one more
  uint32_t count_ = 0;
  uint64_t hash_ = 0;
  int line_ = 0;
  bool inside_ = false;
};

}  // namespace edgecap

#include "meteor.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <stdexcept>

namespace edgecap {
namespace {

constexpr uint64_t kOffset = 0xcbf29ce484222325ULL;
constexpr uint64_t kPrime = 0x100000001b3ULL;
constexpr int kNone = -1;
constexpr uint32_t kNoEntry = UINT32_MAX;

// FNV-1a, to be continued.
uint64_t Hash(uint64_t hash, const char* text, size_t size) {
  for (size_t i = 0; i < size; ++i) {
    hash = (hash ^ static_cast<unsigned char>(text[i])) * kPrime;
  }
  return hash;
}

struct Path {
  std::vector<int> chosen;  // by reference word: the match that starts there
  std::vector<uint8_t> used;
  std::vector<uint8_t> candidate_used;
  int weighted = 0;  // words covered, both sides, those of inexact matches counting half
  int chunks = 0;
  int distance = 0;
  int next = 0;  // first reference word behind the last match
  int last_end = kNone;

  bool IsFree(const WordMatch& m) const {
    return std::none_of(&used[m.start], &used[m.start] + m.length, [](auto u) { return u; }) &&
           std::none_of(&candidate_used[m.other_start],
                        &candidate_used[m.other_start] + m.other_length, [](auto u) { return u; });
  }

  void Mark(int index, const WordMatch& m) {
    chosen[m.start] = index;
    std::fill_n(used.begin() + m.start, m.length, 1);
    std::fill_n(candidate_used.begin() + m.other_start, m.other_length, 1);
  }

  void Count(const WordMatch& m) {
    // METEOR keeps these sums in whole numbers, so that one word matched inexactly weighs nothing.
    weighted += m.exact ? m.length + m.other_length : m.length / 2 + m.other_length / 2;
    if (last_end != kNone && m.other_start != last_end) ++chunks;
    next = m.start + m.length;
    last_end = m.other_start + m.other_length;
  }
};

int Distance(const WordMatch& m) { return std::abs(m.start - m.other_start); }

bool Better(const Path& a, const Path& b) {
  if (a.weighted != b.weighted) return a.weighted > b.weighted;
  if (a.chunks != b.chunks) return a.chunks < b.chunks;
  return a.distance < b.distance;
}

}  // namespace

std::vector<int> Align(int reference_words, int candidate_words,
                       const std::vector<WordMatch>& matches, int beams) {
  const auto words = static_cast<size_t>(std::max(0, reference_words));
  const auto others = static_cast<size_t>(std::max(0, candidate_words));
  std::vector<int> begin(words + 1, 0);
  std::vector<int> cover(words, 0);
  std::vector<int> other_cover(others, 0);
  int last_start = 0;
  for (const WordMatch& m : matches) {
    if (m.start < last_start || m.length < 1 || m.length > reference_words - m.start ||
        m.other_start < 0 || m.other_length < 1 ||
        m.other_length > candidate_words - m.other_start) {
      throw std::invalid_argument("a match out of order or outside of the words");
    }
    last_start = m.start;
    ++begin[m.start + 1];
    for (int i = 0; i < m.length; ++i) ++cover[m.start + i];
    for (int i = 0; i < m.other_length; ++i) ++other_cover[m.other_start + i];
  }
  for (size_t i = 0; i < words; ++i) begin[i + 1] += begin[i];

  Path first;
  first.chosen.assign(words, kNone);
  first.used.assign(words, 0);
  first.candidate_used.assign(others, 0);
  for (int start = 0; start < reference_words; ++start) {
    if (begin[start + 1] - begin[start] != 1) continue;
    // The only match of all its words on both sides is certain.
    const WordMatch& m = matches[begin[start]];
    const auto once = [](int count) { return count == 1; };
    if (std::all_of(&cover[start], &cover[start] + m.length, once) &&
        std::all_of(&other_cover[m.other_start], &other_cover[m.other_start] + m.other_length,
                    once)) {
      first.Mark(begin[start], m);
    }
  }

  std::vector<Path> paths;
  std::vector<Path> grown{std::move(first)};
  for (int current = 0; current < reference_words; ++current) {
    paths.swap(grown);
    grown.clear();
    std::stable_sort(paths.begin(), paths.end(), Better);
    if (paths.size() > static_cast<size_t>(beams)) paths.resize(beams);
    for (Path& path : paths) {
      if (path.used[current]) {
        if (current >= path.next) {
          const WordMatch& m = matches[path.chosen[current]];
          path.Count(m);
          path.distance += Distance(m);
        }
        grown.push_back(std::move(path));
        continue;
      }
      for (int index = begin[current]; index < begin[current + 1]; ++index) {
        const WordMatch& m = matches[index];
        if (!path.IsFree(m)) continue;
        grown.push_back(path);
        grown.back().Mark(index, m);
        grown.back().Count(m);
        // METEOR adds the distance to the path that is left, not to the one that took the match.
        path.distance += Distance(m);
      }
      if (path.last_end != kNone) {
        ++path.chunks;
        path.last_end = kNone;
      }
      ++path.next;
      grown.push_back(std::move(path));
    }
  }
  // The last chunk is still open.
  paths.swap(grown);
  std::stable_sort(paths.begin(), paths.end(), Better);
  if (paths.size() > static_cast<size_t>(beams)) paths.resize(beams);
  for (Path& path : paths) path.chunks += path.last_end != kNone;
  const Path& best = *std::min_element(paths.begin(), paths.end(), Better);
  std::vector<int> found;
  std::copy_if(best.chosen.begin(), best.chosen.end(), std::back_inserter(found),
               [](int index) { return index != kNone; });
  return found;
}

uint32_t ParaphraseTable::Entry(uint64_t phrase) const {
  if (keys_.empty()) return kNoEntry;
  const size_t mask = keys_.size() - 1;
  for (size_t slot = phrase & mask; keys_[slot]; slot = (slot + 1) & mask) {
    if (keys_[slot] == phrase) return ids_[slot];
  }
  return kNoEntry;
}

uint32_t ParaphraseTable::Intern(uint64_t phrase) {
  if ((count_ + 1) * size_t{2} > keys_.size()) {
    std::vector<uint64_t> keys(std::max<size_t>(1 << 16, keys_.size() * 2), 0);
    std::vector<uint32_t> ids(keys.size(), 0);
    for (size_t old = 0; old < keys_.size(); ++old) {
      if (!keys_[old]) continue;
      size_t slot = keys_[old] & (keys.size() - 1);
      while (keys[slot]) slot = (slot + 1) & (keys.size() - 1);
      keys[slot] = keys_[old];
      ids[slot] = ids_[old];
    }
    keys_.swap(keys);
    ids_.swap(ids);
  }
  const size_t mask = keys_.size() - 1;
  size_t slot = phrase & mask;
  for (; keys_[slot]; slot = (slot + 1) & mask) {
    if (keys_[slot] == phrase) return ids_[slot];
  }
  keys_[slot] = phrase;
  ids_[slot] = count_;
  return count_++;
}

void ParaphraseTable::Feed(const char* text, size_t size) {
  const char* const end = text + size;
  while (text != end) {
    const auto* stop = static_cast<const char*>(std::memchr(text, '\n', end - text));
    const char* const last = stop ? stop : end;
    if (!inside_) hash_ = kOffset;
    inside_ = true;
    if (line_) hash_ = Hash(hash_, text, last - text);
    text = last;
    if (!stop) return;
    ++text;
    if (line_ == 1) entries_.push_back(Intern(hash_));
    if (line_ == 2) paraphrases_.push_back(hash_);
    line_ = (line_ + 1) % 3;
    inside_ = false;
  }
}

void ParaphraseTable::Finish() {
  if (line_ || inside_) throw std::invalid_argument("the paraphrase table ends too early");
  begin_.assign(count_ + size_t{1}, 0);
  for (const uint32_t entry : entries_) ++begin_[entry + 1];
  for (size_t entry = 0; entry < count_; ++entry) begin_[entry + 1] += begin_[entry];
  std::vector<uint32_t> next(begin_.begin(), begin_.end() - 1);
  std::vector<uint64_t> sorted(paraphrases_.size());
  for (size_t i = 0; i < entries_.size(); ++i) sorted[next[entries_[i]]++] = paraphrases_[i];
  paraphrases_.swap(sorted);
  std::vector<uint32_t>().swap(entries_);
}

CaptionPhrases ParaphraseTable::Find(const std::vector<std::string>& words) const {
  CaptionPhrases found;
  const int count = static_cast<int>(words.size());
  for (int start = 0; start < count; ++start) {
    uint64_t hash = kOffset;
    for (int length = 1; length <= kMaxWords && start + length <= count; ++length) {
      const std::string& word = words[start + length - 1];
      if (length > 1) hash = Hash(hash, " ", 1);
      hash = Hash(hash, word.data(), word.size());
      found.places.push_back({hash, start, length});
      const uint32_t entry = Entry(hash);
      if (entry != kNoEntry) found.sources.push_back({start, length, entry});
    }
  }
  std::stable_sort(found.places.begin(), found.places.end(),
                   [](const auto& a, const auto& b) { return a.phrase < b.phrase; });
  return found;
}

std::vector<WordMatch> ParaphraseTable::Match(const CaptionPhrases& a,
                                              const CaptionPhrases& b) const {
  std::vector<WordMatch> found;
  for (const auto& source : a.sources) {
    if (source.entry + size_t{1} >= begin_.size()) continue;  // found in another table
    for (uint32_t i = begin_[source.entry]; i < begin_[source.entry + 1]; ++i) {
      auto place =
          std::lower_bound(b.places.begin(), b.places.end(), paraphrases_[i],
                           [](const auto& one, uint64_t wanted) { return one.phrase < wanted; });
      for (; place != b.places.end() && place->phrase == paraphrases_[i]; ++place) {
        found.push_back({source.start, source.length, place->start, place->length, false});
      }
    }
  }
  return found;
}

}  // namespace edgecap

// Drives the C++ of the metrics with random captions and with arguments that contradict each
// other. Built and run under AddressSanitizer and UndefinedBehaviorSanitizer by
// test_metrics_sanitizers.py.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cider.h"
#include "meteor.h"

namespace {

void Check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::exit(1);
}

template <typename Call>
bool Refused(const Call& call) {
  try {
    call();
  } catch (const std::logic_error&) {
    return true;
  }
  return false;
}

void Cider(std::mt19937& random) {
  const int64_t ids[] = {0, 1, 2, 3, -1, INT64_MAX, INT64_MIN};
  const size_t images = 1 + random() % 4;
  std::vector<int64_t> tokens, lengths, counts;
  for (size_t i = 0; i < images; ++i) {
    counts.push_back(1 + random() % 3);
    for (int64_t r = 0; r < counts.back(); ++r) {
      lengths.push_back(random() % 9);
      for (int64_t t = 0; t < lengths.back(); ++t) tokens.push_back(ids[random() % 7]);
    }
  }
  edgecap::CiderD scorer(tokens, lengths, counts);
  std::vector<uint64_t> hashes;
  std::vector<int64_t> frequencies;
  for (size_t id = 0; id < scorer.ngrams(); ++id) {
    Check(scorer.frequency(id) >= 1 && scorer.frequency(id) <= scorer.documents(), "frequency");
    hashes.push_back(scorer.hash(id));
    frequencies.push_back(scorer.frequency(id));
  }
  if (random() % 2) {
    hashes.push_back(random() + uint64_t{1});
    frequencies.push_back(1);
    scorer.SetDocumentFrequency(hashes.data(), frequencies.data(), hashes.size(),
                                scorer.documents() + random() % 3);
  }
  const size_t rows = random() % 5, width = random() % 12;
  std::vector<int64_t> of(rows), candidates(rows * width), used(rows);
  for (auto& image : of) image = random() % images;
  for (auto& token : candidates) token = ids[random() % 7];
  for (auto& length : used) length = random() % (width + 1);
  std::vector<double> scores(rows);
  const auto score = [&] {
    scorer.Score(of.data(), candidates.data(), width, used.data(), rows, scores.data());
  };
  score();
  for (const double one : scores) Check(one >= 0.0 && one <= 10.0 + 1e-9, "score in 0 to 10");
  if (!rows) return;
  of[0] = random() % 2 ? -1 : static_cast<int64_t>(images);
  Check(Refused(score), "an image that is not there is refused");
  of[0] = 0;
  used[0] = random() % 2 ? -1 : static_cast<int64_t>(width) + 1;
  Check(Refused(score), "a length outside of the row is refused");
  lengths[0] += 1;
  Check(Refused([&] { edgecap::CiderD(tokens, lengths, counts); }), "lengths that do not add up");
}

void Align(std::mt19937& random) {
  const int words = random() % 9, others = random() % 9;
  std::vector<edgecap::WordMatch> matches;
  for (int n = random() % 30; n > 0 && words && others; --n) {
    edgecap::WordMatch m{};
    m.start = random() % words;
    m.length = 1 + random() % (words - m.start);
    m.other_start = random() % others;
    m.other_length = 1 + random() % (others - m.other_start);
    m.exact = random() % 2;
    matches.push_back(m);
  }
  std::stable_sort(matches.begin(), matches.end(),
                   [](const auto& a, const auto& b) { return a.start < b.start; });
  std::vector<int> used(words), others_used(others);
  for (const int index : edgecap::Align(words, others, matches, 1 + random() % 40)) {
    const auto& m = matches.at(index);
    for (int i = 0; i < m.length; ++i) Check(!used.at(m.start + i)++, "words used once");
    for (int i = 0; i < m.other_length; ++i) {
      Check(!others_used.at(m.other_start + i)++, "words used once");
    }
  }
}

void Paraphrases(std::mt19937& random) {
  const std::string text = "0.1\na b\nc\n0.2\nc\na b\n0.3\na\nd e f\n0.4\na\nc\n";
  edgecap::ParaphraseTable table;
  for (size_t at = 0; at < text.size();) {
    const size_t size = std::min<size_t>(random() % 7, text.size() - at);
    table.Feed(text.data() + at, size);
    at += size;
  }
  table.Finish();
  Check(table.size() == 4, "four pairs");
  std::vector<std::string> a, b;
  for (int n = random() % 8; n > 0; --n) a.push_back(std::string(1, "abcdefg"[random() % 7]));
  for (int n = random() % 8; n > 0; --n) b.push_back(std::string(1, "abcdefg"[random() % 7]));
  const auto found = table.Match(table.Find(a), table.Find(b));
  for (const auto& m : found) {
    const std::string& from = a.at(m.start);
    const std::string& to = b.at(m.other_start);
    const bool known = (from == "a" && m.length == 2 && to == "c") || (from == "c" && to == "a") ||
                       (from == "a" && to == "d" && m.other_length == 3) ||
                       (from == "a" && m.length == 1 && to == "c");
    Check(known, "only pairs of the table");
  }
  edgecap::ParaphraseTable cut;
  cut.Feed(text.data(), 1 + random() % 9);
  Check(Refused([&] { cut.Finish(); }), "a table that ends too early is refused");
  Check(table.Match(cut.Find(a), cut.Find(b)).size() <= 64, "phrases of another table");
}

}  // namespace

int main() {
  std::mt19937 random(5);
  for (int n = 0; n < 1000; ++n) {
    Cider(random);
    Align(random);
    Paraphrases(random);
  }
  std::puts("sound");
  return 0;
}

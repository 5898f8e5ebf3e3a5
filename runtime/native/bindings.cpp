#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "beam.h"
#include "cider.h"
#include "cuda_bindings.h"
#include "encode_bindings.h"
#include "meteor.h"
#include "step_bindings.h"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace {

using Ids = nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Mask = nb::ndarray<bool, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;
using ConstIds = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ConstRows = nb::ndarray<const int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using ConstHashes = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Hashes = nb::ndarray<uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Holds the arrays it writes to, so that they live as long as the search.
class Search {
 public:
  Search(const edgecap::BeamConfig& config, Ids tokens, Ids parents, Mask ancestry)
      : tokens_(std::move(tokens)),
        parents_(std::move(parents)),
        ancestry_(std::move(ancestry)),
        beam_(CheckedConfig(config),
              {tokens_.data(), parents_.data(), reinterpret_cast<uint8_t*>(ancestry_.data())}) {}

  // The GIL stays: a step takes tens of microseconds, less than handing it over may cost.
  bool Step(const Logits& logits) {
    const auto& c = beam_.config();
    if (logits.shape(0) != Rows(c) || logits.shape(1) != static_cast<size_t>(c.vocab) ||
        logits.stride(1) != 1) {
      throw std::invalid_argument("logits are [" + std::to_string(logits.shape(0)) + ", " +
                                  std::to_string(logits.shape(1)) + "]; give rows of [" +
                                  std::to_string(Rows(c)) + ", " + std::to_string(c.vocab) + "]");
    }
    return beam_.Step(logits.data(), logits.stride(0));
  }

  int position() const { return beam_.position(); }

  // For what steps model and search in one call; valid as long as this search.
  nb::capsule Core() { return nb::capsule(&beam_, "edgecap.BeamSearch"); }

  // (tokens, score, logprobs) of the best `count` hypotheses of one image.
  nb::list Best(int image, int count) const {
    const auto& c = beam_.config();
    if (image < 0 || image >= c.batch || count < 0 || count > c.beams) {
      throw std::out_of_range("no such image or hypothesis");
    }
    std::vector<int64_t> tokens(c.max_new_tokens);
    std::vector<float> logprobs(c.max_new_tokens);
    nb::list best;
    for (int rank = 0; rank < count; ++rank) {
      float score = 0.0f;
      const int length = beam_.Hypothesis(image, rank, tokens.data(), logprobs.data(), &score);
      nb::list ids;
      nb::list values;
      for (int i = 0; i < length; ++i) {
        ids.append(tokens[i]);
        values.append(logprobs[i]);
      }
      best.append(nb::make_tuple(nb::tuple(ids), score, nb::tuple(values)));
    }
    return best;
  }

 private:
  static size_t Rows(const edgecap::BeamConfig& c) {
    return static_cast<size_t>(c.batch) * c.beams;
  }

  const edgecap::BeamConfig& CheckedConfig(const edgecap::BeamConfig& c) const {
    const size_t rows = c.batch > 0 && c.beams > 0 ? Rows(c) : 0;
    if (tokens_.shape(0) != rows || parents_.shape(0) != rows || ancestry_.shape(0) != rows ||
        ancestry_.shape(1) != static_cast<size_t>(c.beams) * c.positions) {
      throw std::invalid_argument("tokens, parents or ancestry do not have B * K rows");
    }
    return c;
  }

  Ids tokens_;
  Ids parents_;
  Mask ancestry_;
  edgecap::BeamSearch beam_;
};

std::vector<int64_t> Copy(const ConstIds& values) {
  return {values.data(), values.data() + values.size()};
}

void BindCider(nb::module_& m) {
  using edgecap::CiderD;
  nb::class_<CiderD>(m, "CiderD")
      .def(
          "__init__",
          [](CiderD* self, const ConstIds& tokens, const ConstIds& lengths,
             const ConstIds& counts) {
            new (self) CiderD(Copy(tokens), Copy(lengths), Copy(counts));
          },
          "tokens"_a.noconvert(), "lengths"_a.noconvert(), "counts"_a.noconvert())
      .def(
          "set_document_frequency",
          [](CiderD& self, const ConstHashes& hashes, const ConstIds& frequencies,
             int64_t documents) {
            if (hashes.size() != frequencies.size()) {
              throw std::invalid_argument("hashes and frequencies differ in length");
            }
            self.SetDocumentFrequency(hashes.data(), frequencies.data(), hashes.size(), documents);
          },
          "hashes"_a.noconvert(), "frequencies"_a.noconvert(), "documents"_a)
      .def(
          "document_frequency",
          [](const CiderD& self, const Hashes& hashes, const Ids& frequencies) {
            if (hashes.size() != self.ngrams() || frequencies.size() != self.ngrams()) {
              throw std::invalid_argument("hashes and frequencies need a place for each n-gram");
            }
            for (size_t id = 0; id < self.ngrams(); ++id) {
              hashes.data()[id] = self.hash(id);
              frequencies.data()[id] = self.frequency(id);
            }
          },
          "hashes"_a.noconvert(), "frequencies"_a.noconvert())
      .def(
          "score",
          [](const CiderD& self, const ConstIds& images, const ConstRows& tokens,
             const ConstIds& lengths, const Values& scores) {
            const size_t rows = images.size();
            if (tokens.shape(0) != rows || lengths.size() != rows || scores.size() != rows) {
              throw std::invalid_argument("images, tokens, lengths and scores differ in rows");
            }
            // A batch takes milliseconds: let other threads, such as a data loader, go on.
            const nb::gil_scoped_release release;
            self.Score(images.data(), tokens.data(), tokens.shape(1), lengths.data(), rows,
                       scores.data());
          },
          "images"_a.noconvert(), "tokens"_a.noconvert(), "lengths"_a.noconvert(),
          "scores"_a.noconvert())
      .def_prop_ro("images", &CiderD::images)
      .def_prop_ro("documents", &CiderD::documents)
      .def_prop_ro("ngrams", &CiderD::ngrams);
}

void BindMeteor(nb::module_& m) {
  using Match = std::tuple<int, int, int, int, bool>;
  m.def(
      "align",
      [](int reference_words, int candidate_words, const std::vector<Match>& matches) {
        std::vector<edgecap::WordMatch> list;
        list.reserve(matches.size());
        for (const auto& [start, length, other_start, other_length, exact] : matches) {
          list.push_back({start, length, other_start, other_length, exact});
        }
        return edgecap::Align(reference_words, candidate_words, list);
      },
      "reference_words"_a, "candidate_words"_a, "matches"_a);
  using edgecap::CaptionPhrases;
  using edgecap::ParaphraseTable;
  nb::class_<CaptionPhrases>(m, "CaptionPhrases");
  nb::class_<ParaphraseTable>(m, "ParaphraseTable")
      .def(nb::init<>())
      .def(
          "feed",
          [](ParaphraseTable& self, const nb::bytes& text) {
            self.Feed(text.c_str(), text.size());
          },
          "text"_a)
      .def("finish", &ParaphraseTable::Finish)
      .def("find", &ParaphraseTable::Find, "words"_a)
      .def(
          "match",
          [](const ParaphraseTable& self, const CaptionPhrases& a, const CaptionPhrases& b) {
            nb::list found;
            for (const auto& m : self.Match(a, b)) {
              found.append(nb::make_tuple(m.start, m.length, m.other_start, m.other_length));
            }
            return found;
          },
          "a"_a, "b"_a)
      .def("__len__", &ParaphraseTable::size);
}

}  // namespace

NB_MODULE(_native, m) {
  // What a thread or a handler still holds when the process ends is no leak to tell users of.
  nb::set_leak_warnings(false);
  nb::class_<Search>(m, "BeamSearch")
      .def(
          "__init__",
          [](Search* self, Ids tokens, Ids parents, Mask ancestry, int batch, int beams, int vocab,
             int positions, int max_new_tokens, int min_new_tokens, int no_repeat_ngram_size,
             float repetition_penalty, double length_penalty, int early_stopping, int64_t bos,
             int64_t eos, int64_t pad, std::vector<int64_t> suppress_tokens) {
            edgecap::BeamConfig c;
            c.batch = batch;
            c.beams = beams;
            c.vocab = vocab;
            c.positions = positions;
            c.max_new_tokens = max_new_tokens;
            c.min_new_tokens = min_new_tokens;
            c.no_repeat_ngram_size = no_repeat_ngram_size;
            c.repetition_penalty = repetition_penalty;
            c.length_penalty = length_penalty;
            c.early_stopping = static_cast<edgecap::EarlyStopping>(early_stopping);
            c.bos = bos;
            c.eos = eos;
            c.pad = pad;
            c.suppress_tokens = std::move(suppress_tokens);
            new (self) Search(c, std::move(tokens), std::move(parents), std::move(ancestry));
          },
          "tokens"_a.noconvert(), "parents"_a.noconvert(), "ancestry"_a.noconvert(), nb::kw_only(),
          "batch"_a, "beams"_a, "vocab"_a, "positions"_a, "max_new_tokens"_a, "min_new_tokens"_a,
          "no_repeat_ngram_size"_a, "repetition_penalty"_a, "length_penalty"_a, "early_stopping"_a,
          "bos"_a, "eos"_a, "pad"_a, "suppress_tokens"_a)
      .def("step", &Search::Step, "logits"_a.noconvert())
      .def_prop_ro("position", &Search::position)
      .def("core", &Search::Core)
      .def("best", &Search::Best, "image"_a, "count"_a);
  BindCider(m);
  BindMeteor(m);
  edgecap::BindStep(m);
  edgecap::BindEncode(m);
  edgecap::BindCuda(m);
}

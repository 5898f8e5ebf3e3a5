"""Two tiny real models, and the same maths in numpy over whole histories instead of caches.

``attention`` has a cache and an ancestry mask, ``recurrent`` has carried state and parents. Both
look at 32 x 32 pictures. Weights come from a fixed seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecap.runtime.engines.onnx import describe_graph, open_session
from edgecap.runtime.manifest import (
    ConfidenceSpec,
    DecodingDefaults,
    Graphs,
    ImageSpec,
    Manifest,
    TokenizerSpec,
)

SIZE, WIDTH, CELLS, POSITIONS = 32, 16, 4, 12
WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "a", "dog", "cat", "man", "woman", "child", "runs"]
WORDS += ["sits", "jumps", "on", "in", "through", "the", "grass", "water", "snow", "street", "red"]
PAD, BOS, EOS, UNK = 0, 1, 2, 3
VOCAB = len(WORDS)
FLOAT = TensorProto.FLOAT


def tokenizer_json() -> bytes:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in WORDS[:4]])
    return tokenizer.to_str().encode()


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    shapes = {
        "see": (3, WIDTH),
        "words": (VOCAB, WIDTH),
        "places": (POSITIONS, WIDTH),
        "query": (WIDTH, WIDTH),
        "key": (WIDTH, WIDTH),
        "value": (WIDTH, WIDTH),
        "look": (WIDTH, WIDTH),
        "state": (WIDTH, WIDTH),
        "out": (WIDTH, VOCAB),
    }
    return {name: rng.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}


class NumpyModel:
    """The oracle: a row's logits from the picture and all tokens before, nothing cached."""

    def __init__(self) -> None:
        self.w = weights()

    def memory(self, image: np.ndarray) -> np.ndarray:
        """uint8 [32, 32, 3] -> float32 [4, WIDTH]: the mean colour of each quarter, projected."""
        half = SIZE // 2
        x = image.astype(np.float32) / 255
        quarters = [
            x[r : r + half, c : c + half].mean((0, 1)) for r in (0, half) for c in (0, half)
        ]
        return np.stack(quarters) @ self.w["see"]

    def attention_logits(self, image: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
        w = self.w
        x = w["words"][list(tokens)] + w["places"][: len(tokens)]
        weight = _softmax((x[-1] @ w["query"]) @ (x @ w["key"]).T / WIDTH**0.5)
        h = x[-1] + weight @ (x @ w["value"])
        memory = self.memory(image)
        h = h + _softmax((h @ w["look"]) @ memory.T) @ memory
        return h @ w["out"]

    def recurrent_logits(self, image: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
        w = self.w
        h = np.tanh(self.memory(image).mean(0))
        for token in tokens:
            h = np.tanh(w["words"][token] + h @ w["state"])
        return (h + self.memory(image).mean(0)) @ w["out"]


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class _Graph:
    """Nodes and constants under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: Any = np.int64) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def model(self, inputs: list[tuple], outputs: list[tuple]) -> bytes:
        w = weights()
        used = {name for node in self.nodes for name in node.input}
        for name in used & w.keys():
            self.constants[name] = numpy_helper.from_array(w[name], name)
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info(*spec) for spec in inputs],
            [helper.make_tensor_value_info(*spec) for spec in outputs],
            list(self.constants.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
        model.ir_version = 9
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString()
        return data


def encoder(recurrent: bool = False) -> bytes:
    g = _Graph()
    g.add("Cast", ["image"], "pixels", to=FLOAT)
    g.add("Div", ["pixels", g.constant("white", 255, np.float32)], "unit")
    g.add("Transpose", ["unit"], "planes", perm=[0, 3, 1, 2])
    half = SIZE // 2
    g.add("AveragePool", ["planes"], "pooled", kernel_shape=[half, half], strides=[half, half])
    g.add("Transpose", ["pooled"], "last", perm=[0, 2, 3, 1])
    g.add("Reshape", ["last", g.constant("cells", [0, CELLS, 3])], "cells3")
    g.add("MatMul", ["cells3", "see"], "memory.grid")
    g.add("ReduceMean", ["memory.grid", g.constant("one", [1])], "mean", keepdims=0)
    g.add("LpNormalization", ["mean"], "features", axis=1, p=2)
    # Darkness stands for novelty: 1 for a black picture, 0 for a white one.
    g.add("ReduceMean", ["cells3", g.constant("both", [1, 2])], "light", keepdims=0)
    g.add("Sub", [g.constant("full", 1, np.float32), "light"], "novelty")
    outputs = [("memory.grid", FLOAT, ["B", CELLS, WIDTH])]
    if recurrent:
        g.add("Tanh", ["mean"], "carry.state")
        outputs.append(("carry.state", FLOAT, ["B", WIDTH]))
    outputs += [("features", FLOAT, ["B", WIDTH]), ("novelty", FLOAT, ["B"])]
    return g.model([("image", TensorProto.UINT8, ["B", SIZE, SIZE, 3])], outputs)


def attention_decoder() -> bytes:
    g = _Graph()
    g.add("Gather", ["words", "token"], "word")
    g.add("Gather", ["places", "position"], "place")
    g.add("Add", ["word", "place"], "x")
    g.add("MatMul", ["x", "key"], "append.key")
    g.add("MatMul", ["x", "value"], "append.value")
    # [B, K, WIDTH] rows of each picture
    g.add("Shape", ["memory.grid"], "batch", start=0, end=1)
    g.add("Concat", ["batch", g.constant("tail", [-1, WIDTH])], "rows", axis=0)
    g.add("MatMul", ["x", "query"], "q_flat")
    g.add("Reshape", ["q_flat", "rows"], "q")
    g.add("Transpose", ["cache.key"], "keys", perm=[0, 2, 1])
    g.add("MatMul", ["q", "keys"], "past_scores")
    g.add("Mul", ["q_flat", "append.key"], "own_products")
    g.add("ReduceSum", ["own_products", g.constant("last_axis", [1])], "own_flat", keepdims=1)
    g.add("Concat", ["batch", g.constant("tail1", [-1, 1])], "rows1", axis=0)
    g.add("Reshape", ["own_flat", "rows1"], "own_scores")
    g.add("Shape", ["past_scores"], "past_shape")
    g.add("Reshape", ["ancestry", "past_shape"], "seen")
    g.add("Where", ["seen", "past_scores", g.constant("never", -1e9, np.float32)], "past_masked")
    g.add("Concat", ["past_masked", "own_scores"], "all_scores", axis=2)
    g.add("Mul", ["all_scores", g.constant("scale", WIDTH**-0.5, np.float32)], "scaled")
    g.add("Softmax", ["scaled"], "shares", axis=2)
    g.add("Shape", ["cache.value"], "slots", start=1, end=2)
    g.add("Add", ["slots", g.constant("one", [1])], "end")
    g.add("Slice", ["shares", g.constant("zero", [0]), "slots", g.constant("two", [2])], "past")
    g.add("Slice", ["shares", "slots", "end", "two"], "own")
    g.add("MatMul", ["past", "cache.value"], "past_values")
    g.add("Reshape", ["append.value", "rows"], "own_value")
    g.add("Mul", ["own", "own_value"], "own_values")
    g.add("Add", ["past_values", "own_values"], "attended")
    g.add("Reshape", ["x", "rows"], "x_rows")
    g.add("Add", ["x_rows", "attended"], "h")
    g.add("MatMul", ["h", "look"], "look_query")
    g.add("Transpose", ["memory.grid"], "grid_t", perm=[0, 2, 1])
    g.add("MatMul", ["look_query", "grid_t"], "look_scores")
    g.add("Softmax", ["look_scores"], "look_shares", axis=2)
    g.add("MatMul", ["look_shares", "memory.grid"], "seen_cells")
    g.add("Add", ["h", "seen_cells"], "h2")
    g.add("Reshape", ["h2", g.constant("flat", [-1, WIDTH])], "h_flat")
    g.add("MatMul", ["h_flat", "out"], "logits")
    return g.model(
        [
            ("token", TensorProto.INT64, ["R"]),
            ("position", TensorProto.INT64, []),
            ("ancestry", TensorProto.BOOL, ["R", "KT"]),
            ("memory.grid", FLOAT, ["B", CELLS, WIDTH]),
            ("cache.key", FLOAT, ["B", "KT", WIDTH]),
            ("cache.value", FLOAT, ["B", "KT", WIDTH]),
        ],
        [
            ("logits", FLOAT, ["R", VOCAB]),
            ("append.key", FLOAT, ["R", WIDTH]),
            ("append.value", FLOAT, ["R", WIDTH]),
        ],
    )


def recurrent_decoder() -> bytes:
    g = _Graph()
    g.add("Gather", ["carry.state", "parent"], "before")
    g.add("MatMul", ["before", "state"], "moved")
    g.add("Gather", ["words", "token"], "word")
    g.add("Add", ["word", "moved"], "sum")
    g.add("Tanh", ["sum"], "new")
    g.add("Identity", ["new"], "next.state")
    g.add("ReduceMean", ["memory.grid", g.constant("one", [1])], "mean", keepdims=1)
    g.add("Shape", ["memory.grid"], "batch", start=0, end=1)
    g.add("Concat", ["batch", g.constant("tail", [-1, WIDTH])], "rows", axis=0)
    g.add("Reshape", ["new", "rows"], "h")
    g.add("Add", ["h", "mean"], "h2")
    g.add("Reshape", ["h2", g.constant("flat", [-1, WIDTH])], "h_flat")
    g.add("MatMul", ["h_flat", "out"], "logits")
    return g.model(
        [
            ("token", TensorProto.INT64, ["R"]),
            ("parent", TensorProto.INT64, ["R"]),
            ("memory.grid", FLOAT, ["B", CELLS, WIDTH]),
            ("carry.state", FLOAT, ["R", WIDTH]),
        ],
        [("logits", FLOAT, ["R", VOCAB]), ("next.state", FLOAT, ["R", WIDTH])],
    )


def parts(recurrent: bool = False, **changes: Any) -> tuple[Manifest, dict[str, bytes]]:
    """Manifest and files of a tiny bundle; ``changes`` replace fields of the manifest."""
    files = {
        "encoder.onnx": encoder(recurrent),
        "decoder.onnx": recurrent_decoder() if recurrent else attention_decoder(),
        "tokenizer.json": tokenizer_json(),
    }
    graphs = {
        role: describe_graph(open_session(files[f"{role}.onnx"], role, 1), f"{role}.onnx")
        for role in ("encoder", "decoder")
    }
    fields: dict[str, Any] = {
        "name": "tiny",
        "version": "1",
        "family": "recurrent" if recurrent else "image-transformer",
        "created_by": "tests",
        "licence": "Apache-2.0",
        "graphs": Graphs(**graphs),
        "image": ImageSpec(size=SIZE),
        "tokenizer": TokenizerSpec(
            file="tokenizer.json", bos=BOS, eos=EOS, pad=PAD, unk=UNK, vocab_size=VOCAB
        ),
        "decoding": DecodingDefaults(
            beams=3, max_new_tokens=8, min_new_tokens=2, suppress_tokens=(PAD, BOS, UNK)
        ),
        "max_positions": POSITIONS,
        # A bright picture is sure, a dark one is not.
        "confidence": ConfidenceSpec(
            intercept=4.0, weights={"novelty": -8.0}, floor=0.5, fitted_on="nothing"
        ),
        "metrics": {"flickr8k": {"val": {"int8": {"CIDEr": 0.5}}}},
        "provenance": {"seed": "7"},
    }
    return Manifest(**{**fields, **changes}), files

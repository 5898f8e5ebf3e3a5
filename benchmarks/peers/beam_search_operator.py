"""ONNX Runtime's beam search operator: ViT-GPT2 as a graph whose one node decodes a whole caption.

``com.microsoft.BeamSearch`` takes int32 word ids, so no picture, and its GPT-2 kind no states of an
encoder; ``WhisperBeamSearch`` takes floats [B, channels, length] and two subgraphs with names of
its own. The encoder's subgraph reads pixels in that place and runs the first step; the decoder's
runs the others, with the picture's keys and values tiled for each beam. Made on the first run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from protocol import serve

OPSET, IR = 18, 10
SHARED = 1 << 16  # bytes: larger constants of the subgraphs are moved to the graph around them


class BeamSearchOperator:
    packages = ("onnxruntime", "torch")

    def load(self, model: Path, threads: int) -> None:
        import onnxruntime

        kept = model.with_name(model.name + "-beam-search.onnx")
        if not kept.is_file():
            kept.write_bytes(operator_graph(model).SerializeToString())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(kept, options)
        processing = json.loads((model / "preprocessor_config.json").read_text())
        self.mean = np.array(processing["image_mean"], np.float32)[:, None]
        self.std = np.array(processing["image_std"], np.float32)[:, None]

    def caption(self, pixels: np.ndarray, beams: int, tokens: int) -> list[int]:
        values = pixels.reshape(-1, 3).T.astype(np.float32) / 255
        given = {
            "pixels": ((values - self.mean) / self.std)[None],
            "max_length": np.array([tokens + 1], np.int32),
            "min_length": np.array([tokens + 1], np.int32),
            "num_beams": np.array([beams], np.int32),
            "num_return_sequences": np.array([1], np.int32),
            "length_penalty": np.array([1], np.float32),
            "repetition_penalty": np.array([1], np.float32),
        }
        (said,) = self.session.run(["sequences"], given)
        return [int(token) for token in said[0, 0, 1:]]


def operator_graph(model: Path) -> Any:
    """The whole captioner as one ONNX model."""
    from onnx import TensorProto, helper

    encoder, decoder, config = _subgraphs(model)
    shared = _share([encoder.graph, decoder.graph])
    kinds = {"length_penalty": TensorProto.FLOAT, "repetition_penalty": TensorProto.FLOAT}
    scalars = ["max_length", "min_length", "num_beams", "num_return_sequences", *kinds]
    end = config.vocab_size - 1
    node = helper.make_node(
        "WhisperBeamSearch", ["pixels", *scalars], ["sequences"], domain="com.microsoft",
        eos_token_id=end, pad_token_id=end, decoder_start_token_id=end, no_repeat_ngram_size=0,
        early_stopping=0, model_type=2, encoder=encoder.graph, decoder=decoder.graph,
    )  # fmt: skip
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["B", 3, "N"])]
    for name in scalars:
        kind = kinds.get(name, TensorProto.INT32)
        inputs.append(helper.make_tensor_value_info(name, kind, [1]))
    output = helper.make_tensor_value_info("sequences", TensorProto.INT32, ["B", "R", "T"])
    graph = helper.make_graph([node], "captions", inputs, [output], shared)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR)


def _share(graphs: list[Any]) -> list[Any]:
    """Move large constants that all subgraphs have out of them: each is there once, and each
    subgraph reads every one, which the operator takes for granted. Small ones stay where they are.
    """
    from hashlib import sha256

    found: list[dict[str, Any]] = []
    for graph in graphs:
        # The first step's place is known: its table would be folded away in that subgraph alone.
        large = [t for t in graph.initializer if t.ByteSize() > SHARED and "wpe" not in t.name]
        found.append(
            {sha256(t.raw_data + bytes(str(t.dims), "ascii")).hexdigest(): t for t in large}
        )
    both = [key for key in found[0] if all(key in other for other in found)]
    shared = []
    for i, key in enumerate(both):
        shared.append(type(found[0][key])())
        shared[-1].CopyFrom(found[0][key])
        shared[-1].name = f"shared_{i}"
    for graph, own in zip(graphs, found, strict=True):
        renamed = {own[key].name: f"shared_{i}" for i, key in enumerate(both)}
        for tensor in [own[key] for key in both]:
            graph.initializer.remove(tensor)
        for node in graph.node:
            for i, name in enumerate(node.input):
                node.input[i] = renamed.get(name, name)
    return shared


def _subgraphs(model: Path) -> tuple[Any, Any, Any]:
    """Encoder with the first step, and further steps, with the operator's names."""
    import torch
    import transformers

    from edgecap.export.onnx import export_module

    net = transformers.VisionEncoderDecoderModel.from_pretrained(model, dtype=torch.float32).eval()
    config = net.decoder.config
    layers, heads = range(config.n_layer), config.n_head
    side = json.loads((model / "preprocessor_config.json").read_text())["size"]["height"]
    steps = _steps(net.decoder)

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.steps = net.encoder, steps

        def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
            values = pixels.view(pixels.shape[0], 3, side, side)
            hidden = self.body(values).last_hidden_state
            cross = self.steps.picture(hidden)
            size = (pixels.shape[0], heads, 0, config.n_embd // heads)
            empty = [torch.zeros(size) for _ in layers for _ in range(2)]
            logits, present = self.steps(ids, empty, cross)
            return (logits, hidden, *present, *cross)

    class Next(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = steps

        def forward(self, ids: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
            logits, present = self.steps(
                ids, list(past[: 2 * len(layers)]), list(past[2 * len(layers) :])
            )
            return (logits, *present)

    def names(start: str, kind: str) -> list[str]:
        return [f"{start}_{part}_{kind}_{i}" for i in layers for part in ("key", "value")]

    def sizes(length: int) -> list[torch.Tensor]:
        return [torch.randn(2, heads, length, config.n_embd // heads) for _ in layers for _ in "kv"]

    free = torch.export.Dim.DYNAMIC
    ids = torch.full((2, 1), 1, dtype=torch.int32)
    encoder = export_module(
        First().eval(), (torch.randn(2, 3, side * side), ids),
        ["encoder_input_ids", "decoder_input_ids"],
        ["logits", "encoder_hidden_states", *names("present", "self"), *names("present", "cross")],
        ({0: free}, {0: free}),
    )  # fmt: skip
    past = [*sizes(3), *sizes(net.encoder.embeddings.position_embeddings.shape[1])]
    moving = [{0: free, 2: free}] * (2 * len(layers)) + [{0: free}] * (2 * len(layers))
    decoder = export_module(
        Next().eval(), (ids, *past),
        ["input_ids", *names("past", "self"), *names("past", "cross")],
        ["logits", *names("present", "self")],
        ({0: free}, tuple(moving)),
    )  # fmt: skip
    # The operator hands the states over, though only keys and values are read.
    from onnx import TensorProto, helper

    shape = ["B", "N", config.n_embd]
    states = helper.make_tensor_value_info("encoder_hidden_states", TensorProto.FLOAT, shape)
    inputs = [decoder.graph.input[0], states, *decoder.graph.input[1:]]
    del decoder.graph.input[:]
    decoder.graph.input.extend(inputs)
    return encoder, decoder, config


def _steps(decoder: Any) -> Any:
    """GPT-2 with cross-attention over explicit keys and values [B, heads, length, size]."""
    import torch

    heads = decoder.config.n_head

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], -1, heads, x.shape[2] // heads).transpose(1, 2)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        weights = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    class Steps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = decoder.transformer, decoder.lm_head

        def picture(self, hidden: torch.Tensor) -> list[torch.Tensor]:
            found = []
            for block in self.body.h:
                found += [split(part) for part in block.crossattention.c_attn(hidden).chunk(2, -1)]
            return found

        def forward(
            self, ids: torch.Tensor, past: list[torch.Tensor], cross: list[torch.Tensor]
        ) -> tuple[torch.Tensor, list[torch.Tensor]]:
            place = self.body.wpe.weight[past[0].shape[2]]
            x = self.body.wte(ids.long()) + place
            present = []
            for i, block in enumerate(self.body.h):
                q, k, v = (split(part) for part in block.attn.c_attn(block.ln_1(x)).chunk(3, -1))
                k, v = (
                    torch.cat([old, new], 2)
                    for old, new in ((past[2 * i], k), (past[2 * i + 1], v))
                )
                present += [k, v]
                x = x + block.attn.c_proj(attend(q, k, v))
                q = split(block.crossattention.q_attn(block.ln_cross_attn(x)))
                mixed = attend(q, cross[2 * i], cross[2 * i + 1])
                x = x + block.crossattention.c_proj(mixed)
                x = x + block.mlp(block.ln_2(x))
            return self.head(self.body.ln_f(x)), present

    return Steps()


if __name__ == "__main__":
    serve(BeamSearchOperator)

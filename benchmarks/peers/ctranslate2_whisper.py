"""CTranslate2: GPT-2 with cross-attention as the decoder of its Whisper model, behind a ViT in ONNX
Runtime. Variants: the compute types ``float32``, ``int8``, ``bfloat16``.

Its own encoders read words or sound, and take no picture; its Whisper takes states that are encoded
already. Whisper's rules for time stamps are off where the start token is the token of no time
stamps: a vocabulary that names the end alone makes one word all three of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from protocol import serve

MEL = 80  # channels of the sound encoder, which never runs


class CTranslate2Whisper:
    packages = ("ctranslate2", "onnxruntime", "torch")
    variant = "float32"

    def load(self, model: Path, threads: int) -> None:
        import ctranslate2
        import onnxruntime

        config = json.loads((model / "config.json").read_text())
        if config.get("decoder", {}).get("model_type") != "gpt2":
            raise ValueError(f"a {config['model_type']} decoder is none of CTranslate2's layers")
        kept = model.with_name(model.name + "-ctranslate2")
        if not (kept / "model.bin").is_file():
            kept.mkdir(parents=True, exist_ok=True)
            specification(model).save(str(kept))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.force_spinning_stop", "1")
        graph = model.with_name(model.name + "-encoder.onnx")
        self.encoder = onnxruntime.InferenceSession(graph, options)
        self.decoder = ctranslate2.models.Whisper(
            str(kept), device="cpu", compute_type=self.variant, intra_threads=threads
        )
        self.start = config["decoder"]["vocab_size"] - 1

    def caption(self, pixels: np.ndarray, beams: int, tokens: int) -> list[int]:
        from ctranslate2 import StorageView

        (hidden,) = self.encoder.run(None, {"image": pixels[None]})
        found = self.decoder.generate(
            StorageView.from_array(hidden),
            [[self.start]],
            beam_size=beams,
            max_length=2 * tokens,  # half of it is for what was said before
            suppress_tokens=[self.start],
            suppress_blank=False,
        )
        return list(found[0].sequences_ids[0])


def specification(model: Path) -> Any:
    """The decoder's weights under the names of CTranslate2."""
    import torch
    import transformers
    from ctranslate2.specs import common_spec, whisper_spec

    net = transformers.VisionEncoderDecoderModel.from_pretrained(model, dtype=torch.float32)
    decoder, config = net.decoder, net.decoder.config
    width, heads = config.n_embd, config.n_head
    spec = whisper_spec.WhisperSpec(1, heads, config.n_layer, heads)
    _sound_encoder(spec.encoder, width)
    target, body = spec.decoder, decoder.transformer
    target.activation = np.int8(common_spec.Activation.GELUTanh)
    target.embeddings.weight = _array(body.wte.weight)
    target.position_encodings.encodings = _array(body.wpe.weight)
    target.projection.weight = _array(decoder.lm_head.weight)
    _norm(target.layer_norm, body.ln_f)
    for layer, block in zip(target.layer, body.h, strict=True):
        own, other = layer.self_attention, layer.attention
        _norm(own.layer_norm, block.ln_1)
        _linear(own.linear[0], block.attn.c_attn)
        _linear(own.linear[1], block.attn.c_proj)
        _norm(other.layer_norm, block.ln_cross_attn)
        _linear(other.linear[0], block.crossattention.q_attn)
        _linear(other.linear[1], block.crossattention.c_attn)
        _linear(other.linear[2], block.crossattention.c_proj)
        _norm(layer.ffn.layer_norm, block.ln_2)
        _linear(layer.ffn.linear_0, block.mlp.c_fc)
        _linear(layer.ffn.linear_1, block.mlp.c_proj)
    words = [f"w{i}" for i in range(config.vocab_size)]
    words[-1] = "<|endoftext|>"
    spec.register_vocabulary(words)
    for name in ("suppress_ids", "suppress_ids_begin", "lang_ids", "alignment_heads"):
        setattr(spec.config, name, [])
    spec.validate()
    return spec


def _sound_encoder(encoder: Any, width: int) -> None:
    """Zeros of the right shapes: the model does not load without them."""

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    encoder.conv1.weight, encoder.conv1.bias = zeros(width, MEL, 3), zeros(width)
    encoder.conv2.weight, encoder.conv2.bias = zeros(width, width, 3), zeros(width)
    encoder.position_encodings.encodings = zeros(1, width)
    layer = encoder.layer[0]
    own, feed = layer.self_attention, layer.ffn
    for norm in (encoder.layer_norm, own.layer_norm, feed.layer_norm):
        norm.gamma, norm.beta = zeros(width), zeros(width)
    outputs = ((own.linear[0], 3), (own.linear[1], 1), (feed.linear_0, 1), (feed.linear_1, 1))
    for linear, times in outputs:
        linear.weight, linear.bias = zeros(times * width, width), zeros(times * width)


def _array(tensor: Any) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy())


def _linear(target: Any, source: Any) -> None:
    target.weight, target.bias = _array(source.weight.T), _array(source.bias)


def _norm(target: Any, source: Any) -> None:
    target.gamma, target.beta = _array(source.weight), _array(source.bias)


if __name__ == "__main__":
    serve(CTranslate2Whisper)

"""GPT-2 (Radford et al. 2019) as an imported decoder, with cross-attention or without."""

from __future__ import annotations

from typing import Any

from edgecap.export.importers.decoder import (
    Cross,
    Decoder,
    Dense,
    Layer,
    activation,
    dense,
    norm_of,
    side_by_side,
)


def gpt2_decoder(net: Any, offset: int = 0) -> Decoder:
    """net : transformers' ``GPT2LMHeadModel``; offset : the position of the first word"""
    body = net.transformer
    return Decoder(
        body.wte.weight,
        body.wpe.weight,
        [_layer(block, net.config) for block in body.h],
        norm=norm_of(body.ln_f),
        head=net.lm_head.weight,
        offset=offset,
    )


def _layer(block: Any, config: Any) -> Layer:
    width, own = config.hidden_size, dense(block.attn.c_attn)
    query = own.columns(0, width, block.attn.scaling)
    cross = None
    if config.add_cross_attention:
        other = block.crossattention
        cross = Cross(
            dense(other.q_attn).columns(0, width, other.scaling),
            dense(other.c_attn),
            dense(other.c_proj),
            norm_of(block.ln_cross_attn),
        )
    return Layer(
        config.num_attention_heads,
        side_by_side(query, _after(own, width)),
        dense(block.attn.c_proj),
        cross,
        dense(block.mlp.c_fc),
        dense(block.mlp.c_proj),
        activation(config.activation_function),
        (norm_of(block.ln_1), norm_of(block.ln_2)),
        before=True,
    )


def _after(layer: Dense, start: int) -> Dense:
    return layer.columns(start, layer.weight.shape[1])

"""BERT's layers (Devlin et al. 2019) as an imported decoder: BERT itself, BLIP's and GIT's text."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgecap.export.importers.decoder import (
    Activation,
    Cross,
    Decoder,
    Dense,
    Layer,
    activation,
    dense,
    norm_of,
    side_by_side,
)


class Transform(nn.Module):
    """What BERT's head does before it reads words: a layer, an activation, a norm."""

    def __init__(self, layer: Dense, act: Activation, norm: nn.Module) -> None:
        super().__init__()
        self.layer, self.act, self.norm = layer, act, norm

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.norm(self.act(self.layer(hidden)))
        return found


def bert_decoder(net: Any) -> Decoder:
    """net : transformers' ``BertLMHeadModel`` or BLIP's ``BlipTextLMHeadModel``"""
    body, head, config = net.bert, net.cls.predictions, net.config
    places = body.embeddings.position_embeddings.weight
    if hasattr(body.embeddings, "token_type_embeddings"):
        # All words of a caption are of the first type.
        places = places + body.embeddings.token_type_embeddings.weight[0]
    return Decoder(
        body.embeddings.word_embeddings.weight,
        places,
        bert_layers(body.encoder.layer, config),
        norm_words=norm_of(body.embeddings.LayerNorm),
        transform=Transform(
            dense(head.transform.dense),
            activation(config.hidden_act),
            norm_of(head.transform.LayerNorm),
        ),
        head=head.decoder.weight,
        bias=head.decoder.bias,
    )


def bert_layers(layers: Any, config: Any) -> list[Layer]:
    """Layers whose parts have BERT's names."""
    heads = config.num_attention_heads
    scale = (config.hidden_size // heads) ** -0.5
    return [_layer(layer, heads, scale, activation(config.hidden_act)) for layer in layers]


def _layer(layer: Any, heads: int, scale: float, act: Activation) -> Layer:
    own, cross = layer.attention, None
    if hasattr(layer, "crossattention"):
        other = layer.crossattention
        cross = Cross(
            _query(other.self, scale),
            side_by_side(dense(other.self.key), dense(other.self.value)),
            dense(other.output.dense),
            norm_of(other.output.LayerNorm),
        )
    return Layer(
        heads,
        side_by_side(_query(own.self, scale), dense(own.self.key), dense(own.self.value)),
        dense(own.output.dense),
        cross,
        dense(layer.intermediate.dense),
        dense(layer.output.dense),
        act,
        (norm_of(own.output.LayerNorm), norm_of(layer.output.LayerNorm)),
        before=False,
    )


def _query(attention: Any, scale: float) -> Dense:
    query = dense(attention.query)
    return query.columns(0, query.weight.shape[1], scale)

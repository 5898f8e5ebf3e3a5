"""Whether a bundle's graphs are what its manifest says, and what the two-graph contract asks.

The same for every engine; the contract is written out in ``docs/bundle.md``.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.runtime.errors import BundleError
from edgecap.runtime.manifest import GraphSpec, Manifest, TensorSpec

DTYPES = ("float32", "float16", "int64", "int32", "uint8", "bool")


def check_tables(manifest: Manifest, real_encoder: GraphSpec, real_decoder: GraphSpec) -> None:
    """Compare the manifest's I/O table with what the loaded graphs take and give."""
    graphs = manifest.graphs
    if not _differs(graphs.encoder, real_decoder) and not _differs(graphs.decoder, real_encoder):
        raise BundleError(
            f"{graphs.encoder.file} and {graphs.decoder.file} are swapped; export the bundle again"
        )
    for said, real in ((graphs.encoder, real_encoder), (graphs.decoder, real_decoder)):
        difference = _differs(said, real)
        if difference:
            raise BundleError(f"{said.file} is not the graph of the manifest: {difference}")


def _differs(said: GraphSpec, real: GraphSpec) -> str:
    for kind, a, b in (("input", said.inputs, real.inputs), ("output", said.outputs, real.outputs)):
        expected, found = {s.name: s for s in a}, {s.name: s for s in b}
        odd = sorted(expected.keys() ^ found.keys())
        if odd:
            where = "graph" if odd[0] in expected else "manifest"
            return f"the {where} has no {kind} {odd[0]!r}"
        for name, spec in expected.items():
            other = found[name]
            if spec.dtype != other.dtype or not _shapes_agree(spec.shape, other.shape):
                return (
                    f"{kind} {name!r} is {other.dtype} {list(other.shape)}, "
                    f"the manifest says {spec.dtype} {list(spec.shape)}"
                )
    return ""


def _shapes_agree(a: Sequence[int | str], b: Sequence[int | str]) -> bool:
    """Same rank, and equal wherever both have a number: the names of free sides are labels."""
    return len(a) == len(b) and all(
        x == y or isinstance(x, str) or isinstance(y, str) for x, y in zip(a, b, strict=True)
    )


def check_contract(manifest: Manifest) -> None:
    """Names, dtypes and shapes of the two-graph contract that the runner relies on."""
    encoder, decoder = manifest.graphs.encoder, manifest.graphs.decoder
    size, vocab = manifest.image.size, manifest.tokenizer.vocab_size
    given = {spec.name: spec for spec in encoder.outputs}
    inputs = {spec.name: spec for spec in decoder.inputs}
    outputs = {spec.name: spec for spec in decoder.outputs}
    fixed: dict[str, tuple[str, tuple[int | str, ...]]] = {
        "token": ("int64", ("R",)),
        "position": ("int64", ()),
        "parent": ("int64", ("R",)),
        "ancestry": ("bool", ("R", "KT")),
    }

    def require(condition: bool, file: str, text: str) -> None:
        if not condition:
            raise BundleError(f"{file} breaks the graph contract: {text}")

    image = [
        (s.name, s.dtype, _shapes_agree(s.shape, ("B", size, size, 3))) for s in encoder.inputs
    ]
    require(
        image == [("image", "uint8", True)],
        encoder.file,
        f"its one input must be image, uint8 [B, {size}, {size}, 3]",
    )
    logits = outputs.get("logits")
    require(
        logits is not None
        and logits.dtype == "float32"
        and len(logits.shape) == 2
        and logits.shape[1] == vocab,
        decoder.file,
        f"it must give logits, float32 [R, {vocab}]",
    )
    require("token" in inputs, decoder.file, "it must take token, int64 [R]")
    for name, spec in [*inputs.items(), *outputs.items()]:
        require(spec.dtype in DTYPES, decoder.file, f"{name} has the dtype {spec.dtype}")
    for name, spec in inputs.items():
        prefix, _, rest = name.partition(".")
        if name in fixed:
            dtype, shape = fixed[name]
            good = spec.dtype == dtype and _shapes_agree(spec.shape, shape)
            require(good, decoder.file, f"{name} must be {dtype} of rank {len(shape)}")
        elif prefix in ("memory", "carry"):
            other = given.get(name)
            good = other is not None and other.dtype == spec.dtype
            good = good and other is not None and _shapes_agree(spec.shape[1:], other.shape[1:])
            require(good, decoder.file, f"{name} is not what {encoder.file} gives")
            if prefix == "carry":
                back = outputs.get("next." + rest)
                good = back is not None and _same(spec, 1, back, 1)
                require(good, decoder.file, f"no next.{rest} like {name}")
                require("parent" in inputs, decoder.file, f"{name} needs the input parent")
        elif prefix == "cache":
            new = outputs.get("append." + rest)
            good = new is not None and _same(spec, 2, new, 1)
            require(good, decoder.file, f"no append.{rest} like {name}")
            require("ancestry" in inputs, decoder.file, f"{name} needs the input ancestry")
        else:
            require(False, decoder.file, f"the input {name!r} has no meaning in it")
    for name in outputs:
        prefix, _, rest = name.partition(".")
        known = name == "logits" or (prefix == "next" and "carry." + rest in inputs)
        known = known or (prefix == "append" and "cache." + rest in inputs)
        require(known, decoder.file, f"the output {name!r} has no meaning in it")


def _same(a: TensorSpec, skip_a: int, b: TensorSpec, skip_b: int) -> bool:
    """Equal dtype, and equal fixed shape past the leading free sides."""
    fixed = a.shape[skip_a:]
    return a.dtype == b.dtype and fixed == b.shape[skip_b:] and _whole(fixed)


def _whole(shape: Sequence[int | str]) -> bool:
    return all(isinstance(side, int) for side in shape)

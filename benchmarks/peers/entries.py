"""Who takes part for which model, and in whose environment."""

from __future__ import annotations

from dataclasses import dataclass, replace

REFERENCE = {"default": "PyTorch"}  # of the others: transformers
FP32, INT8 = "-fp32.edgecap", "-int8.edgecap"


@dataclass(frozen=True)
class Entry:
    """A peer of the table.

    script : beside this file
    model : what is put behind the model's folder to get what this peer loads
    environment : folder of its own virtual environment, below ``--environments``; ours where empty
    exact : whether float32 arithmetic lets its tokens be compared one by one
    second : runs beside the reference and our int8 in a second run: all peers of a large model do
        not fit into 24 GiB together
    """

    name: str
    script: str
    model: str = ""
    environment: str = ""
    variant: str = ""
    exact: bool = True
    second: bool = False


def openvino(variant: str, model: str = FP32, name: str = "") -> Entry:
    return Entry(
        name or f"OpenVINO {variant}",
        "openvino_bundle.py",
        model=model,
        environment="openvino",
        variant=variant,
        exact=variant == "f32",
    )


OPENVINO = (
    openvino("f32"),
    openvino("bf16"),
    openvino("int8", name="OpenVINO int8 (nncf)"),
)
GENAI = Entry("onnxruntime-genai", "genai_types.py", environment="genai")
OURS = (
    Entry("edgecap fp32, ONNX Runtime", "edgecap_bundle.py", model=FP32, variant="onnxruntime"),
    Entry("edgecap int8", "edgecap_bundle.py", model=INT8, exact=False),
)
HUB = (Entry("transformers", "transformers_generate.py"), *OPENVINO)
COMPILED = Entry("transformers, torch.compile", "transformers_generate.py", variant="compile")
CTRANSLATE2 = tuple(
    Entry(
        f"CTranslate2 {kind} behind ONNX Runtime",
        "ctranslate2_whisper.py",
        environment="ctranslate2",
        variant=kind,
        exact=kind == "float32",
    )
    for kind in ("float32", "int8")
)
PEERS: dict[str, tuple[Entry, ...]] = {
    "default": (
        Entry("PyTorch", "torch_search.py"),
        Entry("PyTorch, torch.compile", "torch_search.py", variant="compile"),
        *OPENVINO,
        openvino("bf16", INT8, "OpenVINO, the shipped int8 graphs"),
        Entry("ExecuTorch", "executorch_steps.py", environment="executorch"),
        GENAI,
        *OURS,
    ),
    "vit-gpt2": (
        *HUB,
        replace(COMPILED, second=True),
        Entry("optimum-onnx", "optimum_onnx.py", environment="optimum", second=True),
        Entry("optimum-intel", "optimum_openvino.py", environment="optimum-intel", second=True),
        Entry("ONNX Runtime's beam search operator", "beam_search_operator.py"),
        *CTRANSLATE2,
        GENAI,
        *OURS,
        Entry(
            "edgecap, int8 encoder, own int8 steps", "edgecap_bundle.py",
            model="-steps.edgecap", variant="native", exact=False,
        ),
    ),
    "blip-base": (*HUB, COMPILED, CTRANSLATE2[0], GENAI, *OURS),
}  # fmt: skip


def chosen(model: str, *, second: bool, names: str | None) -> list[Entry]:
    """Those of one run. names : with ; between, instead of those of the run"""
    entries = PEERS[model]
    if names is not None:
        return [entry for entry in entries if entry.name in names.split(";")]
    both = (reference(model), OURS[1].name)
    return [e for e in entries if e.second == second or (second and e.name in both)]


def reference(model: str) -> str:
    """Whose tokens are right."""
    return REFERENCE.get(model, "transformers")

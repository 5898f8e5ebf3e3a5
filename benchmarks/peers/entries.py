"""Who takes part for which model, and in whose environment."""

from __future__ import annotations

from dataclasses import dataclass

REFERENCE = {"default": "PyTorch"}  # of the others: transformers
FP32, INT8 = "-fp32.edgecap", "-int8.edgecap"


@dataclass(frozen=True)
class Entry:
    """A peer of the table.

    script : beside this file
    model : what is put behind the model's folder to get what this peer loads
    environment : folder of its own virtual environment, below ``--environments``; ours where empty
    exact : whether float32 arithmetic lets its tokens be compared one by one
    """

    name: str
    script: str
    model: str = ""
    environment: str = ""
    variant: str = ""
    exact: bool = True


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
HUB = (
    Entry("transformers", "transformers_generate.py"),
    Entry("transformers, torch.compile", "transformers_generate.py", variant="compile"),
    *OPENVINO,
)
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
        Entry("optimum-onnx", "optimum_onnx.py", environment="optimum"),
        Entry("optimum-intel", "optimum_openvino.py", environment="optimum-intel"),
        Entry("ONNX Runtime's beam search operator", "beam_search_operator.py"),
        *CTRANSLATE2,
        GENAI,
        *OURS,
        Entry(
            "edgecap, int8 encoder, own int8 steps", "edgecap_bundle.py",
            model="-steps.edgecap", variant="native", exact=False,
        ),
    ),
    "blip-base": (*HUB, CTRANSLATE2[0], GENAI, *OURS),
}  # fmt: skip


def reference(model: str) -> str:
    """Whose tokens are right."""
    return REFERENCE.get(model, "transformers")

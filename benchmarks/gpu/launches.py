"""How many launches and waits a caption takes, by engine: counted, on any machine.

    python benchmarks/gpu/launches.py --out benchmarks/records/gpu_launches.json

What torch dispatches, what ONNX Runtime has left of a graph and what TensorRT's engine is asked for
do not depend on the device: each compute operation is a kernel or more on a GPU.
"""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import command, machine, write_atomically

from edgecap.bench.step_cost import MODELS, TOKENS, bundle_cost
from edgecap.models import resolve
from edgecap.runtime.bundle import Bundle, read_bundle

BEAMS = 4
SHAPES_ALONE = {"Reshape", "Squeeze", "Unsqueeze", "Shape", "Identity", "Flatten"}


@click.command()
@click.option("--model", default="default", show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(model: str, out: Path | None) -> None:
    """Count, for a bundle and for GPT-2 of 12 layers."""
    bundle = read_bundle(resolve(model))
    record: dict[str, Any] = {
        "command": command("benchmarks/gpu/launches.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "tokens": TOKENS,
        "beams": BEAMS,
        "bundle": {
            "model": bundle.manifest.name,
            "onnxruntime_nodes_a_step": onnxruntime_nodes(bundle),
            "tensorrt_calls_a_step": tensorrt_calls(bundle),
            "own_kernels_a_step": bundle_cost(bundle).launches,
        },
        "gpt2_12_layers": {
            "transformers": transformers_operations(),
            "own_kernels_a_step": MODELS[2]().launches,
        },
    }
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")


def onnxruntime_nodes(bundle: Bundle) -> int:
    """Nodes of the decoder that compute, after ONNX Runtime's own rewriting of the graph."""
    import onnx
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = f"{folder}/decoder.onnx"
        options.log_severity_level = 4
        data = bundle.files[bundle.manifest.graphs.decoder.file]
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(f"{folder}/decoder.onnx").graph
    return sum(node.op_type not in SHAPES_ALONE for node in graph.node)


def tensorrt_calls(bundle: Bundle) -> dict[str, int]:
    """What ``runtime/engines/tensorrt.py`` asks of the driver for a step of one picture."""
    inputs = {spec.name for spec in bundle.manifest.graphs.decoder.inputs}
    outputs = [spec.name for spec in bundle.manifest.graphs.decoder.outputs]
    return {
        "copies_to_the_device": len(inputs & {"token", "position", "parent", "ancestry"}),
        "engine_runs": 1,
        "copies_on_the_device": sum(name.startswith("append.") for name in outputs),
        "copies_back": 1,
        "waits": 1,
    }


def transformers_operations() -> dict[str, Any]:
    """Operations that compute or copy, of one `generate` with beams: GPT-2's 12 layers, narrow."""
    import torch
    import transformers
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        computed = 0
        read_by_host = 0

        def __torch_dispatch__(
            self, op: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if op is torch.ops.aten._local_scalar_dense.default:
                self.read_by_host += 1
            elif not (op.is_view or op.overloadpacket in (torch.ops.aten.detach,)):
                self.computed += 1
            return op(*args, **(kwargs or {}))

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=503, n_embd=48, n_layer=12, n_head=12, bos_token_id=1, eos_token_id=2
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    tokens = torch.tensor([[1]])
    with torch.no_grad(), Counter() as counted:
        model.generate(
            tokens,
            num_beams=BEAMS,
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            do_sample=False,
            pad_token_id=0,
            attention_mask=torch.ones_like(tokens),
        )
    return {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "operations_a_caption": counted.computed,
        "values_read_by_the_host": counted.read_by_host,
    }


if __name__ == "__main__":
    main()

"""PyTorch in float32 on a checkpoint of this project, under this project's beam search; variant
``compile``: the encoder and the step compiled by torch."""

from __future__ import annotations

from pathlib import Path

from bundle_search import BundleSearch, Graphs, read_graphs
from protocol import serve

from edgecap.runtime.engines.base import Engine


class TorchSearch(BundleSearch):
    packages = ("torch", "edgecap")
    variant = "eager"

    def make(self, model: Path, threads: int) -> Engine:
        import torch

        from edgecap.training.checkpoint import load_model
        from edgecap.training.torch_engine import TorchEngine

        torch.set_num_threads(threads)
        net = load_model(model)[0]
        if self.variant == "compile":
            net.frozen = torch.compile(net.frozen)
            net.encode = torch.compile(net.encode)
            net.step = torch.compile(net.step, dynamic=True)
        return TorchEngine(net)

    def graphs_of(self, model: Path) -> Graphs:
        return read_graphs(model.with_name(model.name + "-fp32.edgecap"))


if __name__ == "__main__":
    serve(TorchSearch)

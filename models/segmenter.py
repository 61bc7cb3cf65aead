"""The network with its last step, and its export; the only model file that cannot be loaded without torch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sacroleak.models.architecture import NetworkSpec, probabilities
from sacroleak.models.intensity import CHANNELS


class Probabilities(nn.Module):
    """The network with its last step: softmax over anatomy, sigmoid for cement and for metal."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, channels: Tensor) -> Tensor:
        """(n, 2, i, j, k) channels to (n, 8, i, j, k) probabilities."""
        return probabilities(self.network(channels))


def export_onnx(network: nn.Module, spec: NetworkSpec, path: Path) -> None:
    """Write `Probabilities` as ONNX (opset 17); sides may vary in multiples of 16."""
    model = Probabilities(network.eval())
    example = torch.zeros(1, CHANNELS, *spec.patch)
    axes = {2: "i", 3: "j", 4: "k"}
    torch.onnx.export(model, (example,), str(path), input_names=["channels"], output_names=["probabilities"],
                      dynamic_axes={"channels": axes, "probabilities": axes}, opset_version=17, dynamo=False)

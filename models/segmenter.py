"""The network, for training, export and GPU scoring; the only model file that needs torch and MONAI."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from monai.networks.nets import DynUNet
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from sacroleak.models.intensity import CHANNELS

ANATOMY_CHANNELS = 6
"""Background, sacrum, canal, hip left, hip right, L5: a softmax."""
OUTPUT_CHANNELS = ANATOMY_CHANNELS + 2
"""Then cement and metal, a sigmoid each, because both lie inside bone."""


class NetworkSpec(BaseModel):
    """One network: its pass, voxel size in mm, patch in voxels, and filters from the finest level down."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Literal["coarse", "fine", "near"]
    spacing_mm: float
    patch: tuple[int, int, int]
    filters: tuple[int, ...]


def build_network(spec: NetworkSpec) -> nn.Module:
    """A plain U-Net with instance norm. DynUNet, because strided convolutions train twice as fast here as BasicUNet's
    max-pooling at the same size, and its export has no operation that a CPU runtime lacks.
    """
    levels = len(spec.filters)
    network: nn.Module = DynUNet(
        spatial_dims=3, in_channels=CHANNELS, out_channels=OUTPUT_CHANNELS, kernel_size=[3] * levels,
        strides=[1] + [2] * (levels - 1), upsample_kernel_size=[2] * (levels - 1), filters=list(spec.filters),
        norm_name=("INSTANCE", {"affine": True}), act_name=("leakyrelu", {"negative_slope": 0.01, "inplace": True}),
    )
    return network


class Probabilities(nn.Module):
    """The network with its last step: softmax over anatomy, sigmoid for cement and for metal."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, channels: Tensor) -> Tensor:
        """(n, 2, i, j, k) channels to (n, 8, i, j, k) probabilities."""
        logits = self.network(channels)
        anatomy = torch.softmax(logits[:, :ANATOMY_CHANNELS], dim=1)
        return torch.cat([anatomy, torch.sigmoid(logits[:, ANATOMY_CHANNELS:])], dim=1)


def export_onnx(network: nn.Module, spec: NetworkSpec, path: Path) -> None:
    """Write `Probabilities` as ONNX (opset 17); sides may vary in multiples of 16."""
    model = Probabilities(network.eval())
    example = torch.zeros(1, CHANNELS, *spec.patch)
    axes = {2: "i", 3: "j", 4: "k"}
    torch.onnx.export(model, (example,), str(path), input_names=["channels"], output_names=["probabilities"],
                      dynamic_axes={"channels": axes, "probabilities": axes}, opset_version=17, dynamo=False)

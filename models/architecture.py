"""The shape of the networks, which training, export and graphics cards share; torch and MONAI load when it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sacroleak.models.intensity import CHANNELS

if TYPE_CHECKING:
    from torch import Tensor, nn

ANATOMY_CHANNELS = 6
"""Background, sacrum, canal, hip left, hip right, L5: a softmax."""
OUTPUT_CHANNELS = ANATOMY_CHANNELS + 2
"""Then cement and metal, a sigmoid each, because both lie inside bone."""


class NetworkSpec(BaseModel):
    """One network: its pass, voxel size in mm, patch in voxels, and filters from the finest level down."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Literal["coarse", "fine", "near", "under"]
    spacing_mm: float
    patch: tuple[int, int, int]
    filters: tuple[int, ...]


def build_network(filters: Sequence[int]) -> nn.Module:
    """A plain U-Net with instance norm. DynUNet, because strided convolutions train twice as fast here as BasicUNet's
    max-pooling at the same size, and its export has no operation that a CPU runtime lacks.
    """
    from monai.networks.nets import DynUNet

    levels = len(filters)
    network: nn.Module = DynUNet(
        spatial_dims=3, in_channels=CHANNELS, out_channels=OUTPUT_CHANNELS, kernel_size=[3] * levels,
        strides=[1] + [2] * (levels - 1), upsample_kernel_size=[2] * (levels - 1), filters=list(filters),
        norm_name=("INSTANCE", {"affine": True}), act_name=("leakyrelu", {"negative_slope": 0.01, "inplace": True}),
    )
    return network


def probabilities(logits: Tensor) -> Tensor:
    """(n, 8, i, j, k) logits to probabilities: softmax over anatomy, sigmoid for cement and for metal."""
    import torch

    anatomy = torch.softmax(logits[:, :ANATOMY_CHANNELS], dim=1)
    return torch.cat([anatomy, torch.sigmoid(logits[:, ANATOMY_CHANNELS:])], dim=1)


def weights_in(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The weights of an exported network (ONNX) by their names in `build_network`; nothing in the file is executed."""
    import onnx
    import onnx.numpy_helper

    return {item.name.removeprefix("network."): onnx.numpy_helper.to_array(item).copy()
            for item in onnx.load(path).graph.initializer}


def set_weights(network: nn.Module, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Give the network these weights, in place. Raises ValueError with the first name for which there is none that
    fits."""
    import torch

    own = dict(network.named_parameters())  # its state names some of them twice
    for name, value in own.items():
        if name not in weights or weights[name].shape != tuple(value.shape):
            raise ValueError(name)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(torch.from_numpy(weights[name]))


def filters_of(weights: Mapping[str, npt.NDArray[Any]]) -> tuple[int, ...]:
    """The `filters` of the network that these weights are of. Raises KeyError if they are of no such network."""
    levels = 1 + sum(name.startswith("downsamples.") and name.endswith(".conv1.conv.weight") for name in weights)
    blocks = ["input_block", *(f"downsamples.{n}" for n in range(levels - 1)), "bottleneck"]
    return tuple(int(weights[f"{block}.conv1.conv.weight"].shape[0]) for block in blocks)

"""What a user would run otherwise: the same networks tile by tile in eager torch, and nnU-Net's own predictor.

Only seconds are measured, on noise: a network does the same work whatever it is shown.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from math import ceil, prod
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from sacroleak.core.geometry import Geometry, Shape
from sacroleak.models.intensity import CHANNELS
from sacroleak.training.network_speed import seconds_of

SMALLEST_SIDE, WIDEST = 4, 320
"""nnU-Net's planner halves a patch down to 4 voxels a side, and gives a level 320 features at most."""


class NnUNetPlan(BaseModel):
    """What decides how long nnU-Net works: `patch` voxels, `features` of the finest level, and `labels` it tells apart.

    All else is as its planner sets it: two convolutions a level, instance norm, steps of `step` of a patch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    patch: Shape
    features: int = Field(ge=1)
    labels: int = Field(ge=2)
    step: float = Field(gt=0, le=1)

    @property
    def levels(self) -> int:
        """Levels until the shortest side would be smaller than the planner allows."""
        return 1 + max(n for n in range(10) if min(self.patch) >= SMALLEST_SIDE * 2**n)


def sides_at(geometry: Geometry, spacing_mm: float) -> Shape:
    """Voxels along each axis of a scan that is resampled to `spacing_mm`."""
    i, j, k = (round((n - 1) * float(s) / spacing_mm) + 1
               for n, s in zip(geometry.shape, geometry.spacing_mm, strict=True))
    return i, j, k


def tiles_over(sides: Shape, patch: Shape, stride: tuple[float, float, float]) -> int:
    """Tiles of `patch` voxels, at most `stride` apart, that cover `sides` voxels; shorter sides are padded."""
    return prod(1 + ceil(max(side - n, 0) / step) for side, n, step in zip(sides, patch, stride, strict=True))


def inferer_tiles(sides: Shape, patch: Shape, overlap: float) -> int:
    """Tiles that MONAI's SlidingWindowInferer runs over `sides` voxels."""
    i, j, k = (max(int(n * (1 - overlap)), 1) for n in patch)
    return tiles_over(sides, patch, (i, j, k))


def nnunet_tiles(sides: Shape, plan: NnUNetPlan) -> int:
    """Tiles that nnU-Net's predictor runs over `sides` voxels, each once for each way of mirroring."""
    i, j, k = (n * plan.step for n in plan.patch)
    return tiles_over(sides, plan.patch, (i, j, k))


def scaled(tile_seconds: Sequence[float], tiles: int) -> list[float]:
    """Seconds that a whole scan of `tiles` tiles takes, once for each tile that was timed."""
    return [seconds * tiles for seconds in tile_seconds]


def eager(network: nn.Module, patch: Shape, overlap: float) -> Callable[[], None]:
    """One tile through MONAI's sliding window, ready to run; all other settings are its defaults."""
    inferer = SlidingWindowInferer(roi_size=patch, overlap=overlap)
    tile, network = _noise(CHANNELS, patch)[None], network.eval()

    def run() -> None:
        with torch.inference_mode():
            inferer(tile, network)

    return run


def nnunet(plan: NnUNetPlan, *, mirror: bool) -> Callable[[], None]:
    """One tile through nnU-Net's predictor with a new network of its 3d_fullres plan, ready to run."""
    with redirect_stdout(io.StringIO()):  # it speaks of folders for training, which nobody needs here
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # brought by the bench extra alone
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        manager = PlansManager(plans_of(plan))
        configuration = manager.get_configuration("3d_fullres")
        network = get_network_from_plans(
            configuration.network_arch_class_name, configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import, 1, plan.labels, allow_init=True, deep_supervision=False)
        predictor = nnUNetPredictor(tile_step_size=plan.step, use_mirroring=mirror, device=torch.device("cpu"),
                                    allow_tqdm=False)
    named = {"background": 0, **{f"label {n}": n for n in range(1, plan.labels)}}
    predictor.manual_initialization(network, manager, configuration, None, {"labels": named}, "nnUNetTrainer",
                                    (0, 1, 2))
    tile = _noise(1, plan.patch)

    def run() -> None:
        predictor.predict_sliding_window_return_logits(tile)

    return run


def plans_of(plan: NnUNetPlan) -> dict[str, Any]:
    """The plans file that nnU-Net's planner writes for such a patch, as far as its predictor reads it."""
    levels = plan.levels
    network = {
        "n_stages": levels, "features_per_stage": [min(plan.features * 2**n, WIDEST) for n in range(levels)],
        "conv_op": "torch.nn.modules.conv.Conv3d", "kernel_sizes": [[3, 3, 3]] * levels,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * (levels - 1)], "n_conv_per_stage": [2] * levels,
        "n_conv_per_stage_decoder": [2] * (levels - 1), "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True}}
    architecture = {"network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": network, "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}
    return {"label_manager": "LabelManager",
            "configurations": {"3d_fullres": {"patch_size": list(plan.patch), "architecture": architecture}}}


def timed(run: Callable[[], None], times: int) -> list[float]:
    """Seconds of each of so many runs."""
    return [seconds_of(run) for _ in range(times)]


def _noise(channels: int, sides: Shape) -> Tensor:
    return torch.randn((channels, *sides), generator=torch.Generator().manual_seed(0))

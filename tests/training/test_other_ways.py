"""Tiles are counted as those who cut them count them, and both other ways run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from sacroleak.core.geometry import Geometry, Shape
from sacroleak.training.other_ways import (
    NnUNetPlan,
    eager,
    inferer_tiles,
    nnunet,
    nnunet_tiles,
    plans_of,
    scaled,
    sides_at,
    tiles_over,
    timed,
)

PLAN = NnUNetPlan(patch=(128, 128, 128), features=32, labels=8, step=0.5)
SMALL = NnUNetPlan(patch=(16, 16, 16), features=2, labels=3, step=0.5)


class Counting(nn.Module):
    """Answers with what it is given, and counts how often."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, tile: Tensor) -> Tensor:
        self.shapes.append(tuple(tile.shape))
        return tile


@pytest.mark.parametrize(("sides", "patch", "overlap"), [
    ((40, 33, 20), (16, 16, 12), 0.25), ((16, 16, 12), (16, 16, 12), 0.25), ((10, 40, 13), (16, 16, 12), 0.25),
    ((41, 40, 39), (20, 10, 13), 0.5), ((30, 31, 32), (10, 10, 10), 0.0),
])
def test_tiles_of_the_sliding_window_are_those_that_monai_runs(sides: Shape, patch: Shape, overlap: float) -> None:
    counting = Counting()
    SlidingWindowInferer(roi_size=patch, overlap=overlap)(torch.zeros(1, 1, *sides), counting)
    assert inferer_tiles(sides, patch, overlap) == len(counting.shapes)


def test_tiles_of_a_whole_scan() -> None:
    assert tiles_over((512, 512, 300), (128, 128, 128), (64.0, 64.0, 64.0)) == 7 * 7 * 4
    assert nnunet_tiles((512, 512, 300), PLAN) == 7 * 7 * 4
    assert nnunet_tiles((133, 107, 113), PLAN) == 2, "shorter sides are padded to one patch"


@pytest.mark.parametrize("sides", [(512, 512, 300), (133, 128, 129), (400, 321, 193)])
def test_tiles_of_nnunet_are_those_that_it_runs(sides: Shape) -> None:
    sliding = pytest.importorskip("nnunetv2.inference.sliding_window_prediction")
    steps = sliding.compute_steps_for_sliding_window(sides, PLAN.patch, PLAN.step)
    assert nnunet_tiles(sides, PLAN) == np.prod([len(along) for along in steps])


def test_a_scan_keeps_its_extent_on_another_grid() -> None:
    geometry = Geometry(affine=np.diag([0.8, 0.8, 1.5, 1.0]), shape=(501, 11, 5))
    assert sides_at(geometry, 1.0) == (401, 9, 7)
    assert sides_at(geometry, 0.8)[:2] == (501, 11)


def test_each_timed_tile_stands_for_the_whole_scan() -> None:
    assert scaled([0.5, 0.25], 8) == [4.0, 2.0]


def test_a_tile_goes_through_monai_once() -> None:
    counting = Counting()
    assert len(timed(eager(counting, (16, 16, 8), 0.25), 3)) == 3
    assert counting.shapes == [(1, 2, 16, 16, 8)] * 3


def test_the_plan_is_the_one_that_nnunets_planner_writes() -> None:
    network = plans_of(PLAN)["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert network["features_per_stage"] == [32, 64, 128, 256, 320, 320]
    assert network["strides"] == [[1, 1, 1], *[[2, 2, 2]] * 5]
    assert len(network["n_conv_per_stage_decoder"]) == 5


@pytest.mark.parametrize(("mirror", "looks"), [(True, 8), (False, 1)])
def test_nnunets_own_predictor_looks_at_each_tile_as_often_as_it_mirrors(
        mirror: bool, looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    pytest.importorskip("nnunetv2")
    asked: list[tuple[int, ...]] = []
    forward = unet.PlainConvUNet.forward

    def counted(network: nn.Module, tile: Tensor) -> Tensor:
        asked.append(tuple(tile.shape))
        answer: Tensor = forward(network, tile)
        return answer

    monkeypatch.setattr(unet.PlainConvUNet, "forward", counted)
    nnunet(SMALL, mirror=mirror)()
    assert asked == [(1, 1, 16, 16, 16)] * looks

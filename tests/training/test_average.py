"""Weights of several networks become their mean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sacroleak.core.config import load_config
from sacroleak.core.errors import ModelError
from sacroleak.models.architecture import build_network, weights_in
from sacroleak.training import average
from sacroleak.training.export import exported
from sacroleak.training.train_segmenter import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning",
                                        "ignore::torch.jit.TracerWarning")  # the exporter speaks of its own inside


@pytest.fixture(scope="module")
def config(repository: Path) -> TrainConfig:
    return load_config(repository / "configs/smoke/train_coarse.yaml", TrainConfig)


def network(config: TrainConfig, path: Path, *, seed: int) -> Path:
    """As if trained: no two of its weights are the same."""
    torch.manual_seed(seed)
    made = build_network(config.network.filters)
    with torch.no_grad():
        for value in made.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return exported(made, config, updates=seed, out=path)


def test_weights_are_the_mean_of_all(config: TrainConfig, tmp_path: Path) -> None:
    parts = [network(config, tmp_path / f"{seed}.onnx", seed=seed) for seed in (1, 2, 3)]
    out = average.main(config, parts, updates=42, out=tmp_path / "mean.onnx")
    found, given = weights_in(out), [weights_in(path) for path in parts]
    assert found.keys() == given[0].keys()
    assert any(not np.array_equal(given[0][name], given[1][name]) for name in found), "or nothing is averaged"
    for name, values in found.items():
        np.testing.assert_allclose(values, (given[0][name] + given[1][name] + given[2][name]) / 3, rtol=1e-5, atol=1e-7)
    assert json.loads(out.with_suffix(".json").read_text())["updates"] == 42


def test_a_network_of_another_shape_is_named(config: TrainConfig, tmp_path: Path) -> None:
    wider = config.model_copy(update={"network": config.network.model_copy(
        update={"filters": tuple(2 * number for number in config.network.filters)})})
    parts = [network(config, tmp_path / "own.onnx", seed=1), network(wider, tmp_path / "wider.onnx", seed=1)]
    with pytest.raises(ModelError, match=r"wider\.onnx: is not of this network's shape"):
        average.main(config, parts, updates=1, out=tmp_path / "mean.onnx")
    assert not (tmp_path / "mean.onnx").exists()

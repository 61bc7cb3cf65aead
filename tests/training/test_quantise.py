"""Channels of one tensor reach as far as each other, and the network says what it said, in 8 bits nearly so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from sacroleak.core.config import load_config
from sacroleak.core.errors import ModelError
from sacroleak.models.architecture import build_network, set_weights, weights_in
from sacroleak.models.int8 import RANGES
from sacroleak.models.runtime import OpenVinoNetwork
from sacroleak.training import average, quantise
from sacroleak.training.export import LARGEST_DIFFERENCE, exported
from sacroleak.training.quantise import QuantiseConfig, scale_channels
from sacroleak.training.train_segmenter import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning",
                                        "ignore::torch.jit.TracerWarning")  # the exporter speaks of its own inside
CONFIG = QuantiseConfig(networks=("fine",), samples=3, tried=2, seed=1, tails=(1e-5, 0.4), channel_tails=(1e-3,),
                        most_changed=0.2)


@pytest.fixture(scope="module")
def train(repository: Path) -> TrainConfig:
    return load_config(repository / "configs/smoke/train_fine.yaml", TrainConfig)


@pytest.fixture(scope="module")
def network(train: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As if trained, with channels of which some say ten times as much as others."""
    torch.manual_seed(5)
    made = build_network(train.network.filters)
    with torch.no_grad():
        for name, value in made.named_parameters():
            value.add_(0.1 * torch.randn_like(value))
            if "norm" in name:
                value.mul_(torch.logspace(-0.5, 0.5, len(value)))
    return exported(made, train, updates=9, out=tmp_path_factory.mktemp("float32") / "fine.onnx")


@pytest.fixture(scope="module")
def ready(train: TrainConfig, network: Path, anatomies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = sorted(anatomies.glob("*.npz"))
    out = tmp_path_factory.mktemp("ready") / "export/fine.onnx"  # in a folder that is not there yet
    return quantise.main(CONFIG, train, network=network, files=files, out=out)


@pytest.fixture(scope="module")
def channels(train: TrainConfig) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-1, 1, (2, *train.network.patch)).astype(np.float32)


def test_the_network_says_what_it_said_and_in_8_bits_nearly_so(
        network: Path, ready: Path, channels: npt.NDArray[np.float32]) -> None:
    before, after = (OpenVinoNetwork(path, threads=1)(channels) for path in (network, ready))
    rough = OpenVinoNetwork(ready, threads=1, precision="int8")(channels)
    assert np.abs(before - after).max() <= LARGEST_DIFFERENCE
    assert 0 < np.abs(before - rough).mean() < 0.05
    facts = json.loads(ready.with_suffix(".json").read_text())
    assert facts["updates"] == 9
    assert 0 < facts["int8_changes"] <= CONFIG.most_changed


def test_what_convolutions_read_has_a_range_and_what_is_joined_the_same(ready: Path) -> None:
    model = onnx.load(ready)
    ranges = json.loads(next(item.value for item in model.metadata_props if item.key == RANGES))
    read = {node.input[0] for node in model.graph.node if node.op_type in {"Conv", "ConvTranspose"}} - {"channels"}
    joined = {node.output[0]: list(node.input) for node in model.graph.node if node.op_type == "Concat"}
    assert {part for name in read for part in joined.get(name, [name])} == ranges.keys()
    assert all(low < 0 < high for low, high in ranges.values())
    pairs = [joined[name] for name in read & joined.keys()]
    assert pairs
    assert all(ranges[one] == ranges[other] for one, other in pairs)


def test_channels_reach_as_far_as_each_other(network: Path, ready: Path) -> None:
    """What norms multiply by says how far their channels go: all are standard before."""
    def spread(path: Path) -> float:
        weights = weights_in(path)
        norms = [np.abs(values) for name, values in weights.items() if "norm" in name and name.endswith("weight")]
        return float(np.mean([values.max() / values.min() for values in norms]))

    assert spread(network) > 5
    assert spread(ready) < spread(network) / 3


def test_training_can_go_on_from_it(train: TrainConfig, ready: Path, tmp_path: Path,
                                    channels: npt.NDArray[np.float32]) -> None:
    again = build_network(train.network.filters)
    set_weights(again, weights_in(ready))
    path = exported(again, train, updates=9, out=tmp_path / "again.onnx")
    wanted, found = (OpenVinoNetwork(one, threads=1)(channels) for one in (ready, path))
    assert np.abs(wanted - found).max() <= LARGEST_DIFFERENCE


def test_a_network_that_is_not_named_stays_as_it_is(train: TrainConfig, network: Path, tmp_path: Path) -> None:
    out = quantise.main(CONFIG.model_copy(update={"networks": ("near",)}), train, network=network, files=[],
                        out=tmp_path / "fine.onnx")
    assert out.read_bytes() == network.read_bytes()
    assert out.with_suffix(".json").read_text() == network.with_suffix(".json").read_text()


def test_a_network_that_integers_change_too_much_is_refused(
        train: TrainConfig, network: Path, anatomies: Path, tmp_path: Path) -> None:
    strict = CONFIG.model_copy(update={"most_changed": 1e-9})
    with pytest.raises(ModelError, match=r"fine\.onnx: in 8 bits .* of voxels change their structure"):
        quantise.main(strict, train, network=network, files=sorted(anatomies.glob("*.npz")), out=tmp_path / "fine.onnx")


def test_a_tensor_that_no_weights_scale_is_refused(network: Path) -> None:
    model = onnx.load(network)
    first = next(node for node in model.graph.node if node.op_type == "LeakyRelu")
    first.op_type = "Sigmoid"
    with pytest.raises(ModelError, match="comes from Sigmoid, wanted a norm"):
        scale_channels(model, {first.output[0]: np.ones(2, dtype=np.float32)})


def test_networks_scaled_in_different_ways_have_no_mean(
        train: TrainConfig, ready: Path, tmp_path: Path) -> None:
    model = onnx.load(ready)
    model.metadata_props[0].value = json.dumps({"other": [0, 1]})
    (tmp_path / "other.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="channels are scaled in different ways"):
        average.main(train, [ready, tmp_path / "other.onnx"], updates=1, out=tmp_path / "mean.onnx")

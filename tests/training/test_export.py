"""The exported network says what the trained one said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sacroleak.core.config import load_config
from sacroleak.core.errors import ModelError
from sacroleak.models.architecture import ANATOMY_CHANNELS, OUTPUT_CHANNELS
from sacroleak.models.runtime import OpenVinoNetwork
from sacroleak.training import export
from sacroleak.training.train_segmenter import TrainConfig, Trainer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning",
                                        "ignore::torch.jit.TracerWarning")  # the exporter speaks of its own inside


@pytest.fixture(scope="module")
def config(repository: Path) -> TrainConfig:
    return load_config(repository / "configs/smoke/train_coarse.yaml", TrainConfig)


@pytest.fixture
def checkpoint(config: TrainConfig, tmp_path: Path) -> Path:
    """Smoothed weights that differ from the last ones, seven updates in."""
    trainer = Trainer(config, device="cpu")
    trainer.update = 7
    with torch.no_grad():
        for value in trainer.network.parameters():
            value.add_(1.0)
    trainer.save(tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def test_smoothed_weights_are_exported_and_agree(config: TrainConfig, checkpoint: Path, tmp_path: Path) -> None:
    path = export.main(config, checkpoint=checkpoint, out=tmp_path / "export/coarse.onnx")
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["updates"] == 7
    assert 0 <= facts["largest_difference"] <= export.LARGEST_DIFFERENCE
    network = OpenVinoNetwork(path, threads=1)
    for shape in (config.network.patch, (48, 16, 32)):
        channels = np.random.default_rng(0).uniform(-1, 1, (2, *shape)).astype(np.float32)
        probabilities = network(channels)
        assert probabilities.shape == (OUTPUT_CHANNELS, *shape)
        assert probabilities[:ANATOMY_CHANNELS].sum(axis=0) == pytest.approx(1.0, abs=1e-4)
        assert probabilities.min() >= 0
        assert probabilities.max() <= 1


def test_runtimes_that_disagree_are_refused(config: TrainConfig, checkpoint: Path, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    honest = OpenVinoNetwork.__call__
    monkeypatch.setattr(OpenVinoNetwork, "__call__", lambda self, channels: honest(self, channels) + 0.1)
    with pytest.raises(ModelError, match=r"exported probabilities differ by 0\.1"):
        export.main(config, checkpoint=checkpoint, out=tmp_path / "coarse.onnx")


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fine.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(ModelError, match=r"fine\.onnx: not a network"):
        OpenVinoNetwork(path, threads=1)

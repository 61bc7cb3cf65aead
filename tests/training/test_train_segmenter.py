"""A tiny training run: it writes a checkpoint, goes on exactly where it stopped, and refuses what is no number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sacroleak.core.config import load_config
from sacroleak.core.errors import ModelError
from sacroleak.models import effort
from sacroleak.models.architecture import ANATOMY_CHANNELS, OUTPUT_CHANNELS, build_network
from sacroleak.models.segmenter import export_onnx
from sacroleak.training import train_segmenter
from sacroleak.training.sampling import SyntheticPatches
from sacroleak.training.train_segmenter import TrainConfig, Trainer, dice_of, learning_rate

LEGACY_EXPORT = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning",
                                           "ignore::torch.jit.TracerWarning")


@pytest.fixture(scope="module")
def config(repository: Path) -> TrainConfig:
    return load_config(repository / "configs/smoke/train_fine.yaml", TrainConfig)


def batch(config: TrainConfig) -> tuple[Tensor, Tensor, Tensor]:
    anatomy = torch.zeros(1, *config.network.patch, dtype=torch.uint8)
    anatomy[:, 10:20, 10:20, 10:20] = 1
    return (torch.rand(1, 2, *config.network.patch, generator=torch.Generator().manual_seed(0)), anatomy,
            torch.zeros(1, 2, *config.network.patch, dtype=torch.uint8))


def apart(some: list[nn.Parameter], others: Sequence[Tensor]) -> float:
    return sum(float((a - b).detach().abs().sum()) for a, b in zip(some, others, strict=True))


def weights(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, weights_only=True)
    return {f"{part}.{name}": value for part in ("network", "smooth") for name, value in state[part].items()}


def test_a_run_that_was_stopped_goes_on_exactly(config: TrainConfig, anatomies: Path, manifest: Path, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train_segmenter.main(config, anatomies=anatomies, manifest=manifest, out=tmp_path / "whole")
    assert torch.load(whole, weights_only=True)["update"] == config.updates == 3

    step = Trainer.step

    def stopped(self: Trainer, channels: Tensor, anatomy: Tensor, dense: Tensor) -> tuple[float, Tensor]:
        if self.update == 2:
            raise KeyboardInterrupt
        return step(self, channels, anatomy, dense)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            train_segmenter.main(config, anatomies=anatomies, manifest=manifest, out=tmp_path / "parts")
    checkpoint = tmp_path / "parts/checkpoint.pt"
    assert torch.load(checkpoint, weights_only=True)["update"] == 2

    starts = []
    draw = SyntheticPatches.__init__

    def noted(self: SyntheticPatches, *given: object, start: int, every: int, **more: object) -> None:
        starts.append((start, every))
        draw(self, *given, start=start, every=every, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(SyntheticPatches, "__init__", noted)
    train_segmenter.main(config, anatomies=anatomies, manifest=manifest, out=tmp_path / "parts")
    assert starts == [(2, 1)], "sample numbers go on"
    a, b = weights(whole), weights(checkpoint)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert sorted(file.name for file in checkpoint.parent.iterdir()) == ["checkpoint.pt", "log.jsonl"]


def test_a_finished_run_is_left_alone(config: TrainConfig, anatomies: Path, manifest: Path, tmp_path: Path) -> None:
    trainer = Trainer(config, device="cpu")
    trainer.update = config.updates
    trainer.save(tmp_path / "checkpoint.pt")
    before = (tmp_path / "checkpoint.pt").read_bytes()
    train_segmenter.main(config, anatomies=anatomies, manifest=manifest, out=tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_loss_that_is_no_number_stops_the_run_and_spares_the_weights(config: TrainConfig) -> None:
    trainer = Trainer(config, device="cpu")
    before = [p.detach().clone() for p in trainer.network.parameters()]
    channels, anatomy, dense = batch(config)
    channels[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match="update 0: the loss is not a number"):
        trainer.step(channels, anatomy, dense)
    assert trainer.update == 0
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))


@pytest.mark.parametrize(("quickest", "dtype"), [("f32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_processor_calculates_in_what_it_is_quickest_in(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, quickest: str, dtype: torch.dtype,
) -> None:
    monkeypatch.setattr(effort, "quickest", lambda: quickest)
    assert Trainer(config, device="cpu").step(*batch(config))[1].dtype is dtype


def test_updates_on_one_sample_lower_its_loss(config: TrainConfig) -> None:
    trainer = Trainer(config.model_copy(update={"updates": 60, "learning_rate": 0.01}), device="cpu")
    losses = [trainer.step(*batch(config))[0] for _ in range(12)]
    assert losses[-1] < 0.9 * losses[0]
    assert trainer.update == 12


def test_the_smoothed_weights_lag_behind(config: TrainConfig) -> None:
    trainer = Trainer(config, device="cpu")
    start = [p.detach().clone() for p in trainer.network.parameters()]
    for _ in range(3):
        trainer.step(*batch(config))
    last = list(trainer.network.parameters())
    assert 0 < apart(last, list(trainer.smooth.parameters())) < apart(last, start)


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth(config: TrainConfig) -> None:
    plan = config.model_copy(update={"updates": 1000, "warm_up": 100, "learning_rate": 2e-3})
    rates = [learning_rate(plan, n) for n in range(1001)]
    assert rates[0] == pytest.approx(2e-5)
    assert rates[99] == rates[100] == max(rates) == pytest.approx(2e-3)
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[550] == pytest.approx(1.01e-3, rel=0.01)
    assert rates[1000] == learning_rate(plan, 5000) == pytest.approx(2e-5)
    assert learning_rate(plan.model_copy(update={"warm_up": 0}), 0) == pytest.approx(2e-3)


def test_the_log_has_a_line_every_twenty_updates(config: TrainConfig, anatomies: Path, manifest: Path, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def skipped(self: Trainer, channels: Tensor, anatomy: Tensor, dense: Tensor) -> tuple[float, Tensor]:
        self.update += 1
        return 2.0, torch.zeros(1, OUTPUT_CHANNELS, *anatomy.shape[1:])

    sample = tuple(part[0] for part in batch(config))
    monkeypatch.setattr(Trainer, "step", skipped)
    monkeypatch.setattr(SyntheticPatches, "__iter__", lambda self: iter(lambda: sample, None))
    train_segmenter.main(config.model_copy(update={"updates": 40, "checkpoint_every": 40}), anatomies=anatomies,
                         manifest=manifest, out=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == [20, 40]
    assert lines[0]["loss"] == 2.0
    assert "dice_sacrum" in lines[0]
    assert "dice_canal" not in lines[0], "what is absent has no Dice"


def test_dice_is_one_for_the_truth_and_none_for_what_is_absent() -> None:
    anatomy = torch.zeros(1, 6, 6, 6, dtype=torch.uint8)
    anatomy[0, 1] = 1
    anatomy[0, 2] = 2
    dense = torch.zeros(1, 2, 6, 6, 6, dtype=torch.uint8)
    dense[0, 0, 1, :2] = 1
    logits = torch.full((1, OUTPUT_CHANNELS, 6, 6, 6), -5.0)
    for label in range(ANATOMY_CHANNELS):
        logits[:, label][anatomy == label] = 5.0
    logits[0, ANATOMY_CHANNELS, 1, :1] = 5.0
    scores = dice_of(logits, anatomy, dense)
    assert scores["sacrum"] == scores["canal"] == 1.0
    assert scores["cement"] == pytest.approx(2 / 3)
    assert scores["l5"] is None
    assert scores["metal"] is None


@LEGACY_EXPORT
def test_a_new_run_begins_with_an_exported_network(config: TrainConfig, tmp_path: Path) -> None:
    other = build_network(config.network.filters)
    for value in other.parameters():  # the exporter writes equal tensors once, and untrained ones are equal
        nn.init.normal_(value)
    export_onnx(other, config.network, tmp_path / "other.onnx")
    trainer = Trainer(config, device="cpu")
    trainer.start_from(tmp_path / "other.onnx")
    for network in (trainer.network, trainer.smooth):
        pairs = zip(network.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


@LEGACY_EXPORT
def test_a_network_of_another_shape_is_no_beginning(config: TrainConfig, tmp_path: Path) -> None:
    wider = config.network.model_copy(update={"filters": (4, 8, 16)})
    export_onnx(build_network(wider.filters), wider, tmp_path / "wider.onnx")
    with pytest.raises(ModelError, match=r"wider\.onnx: is not of this network's shape"):
        Trainer(config, device="cpu").start_from(tmp_path / "wider.onnx")


def test_a_new_run_begins_with_the_training_beside_it(config: TrainConfig, tmp_path: Path) -> None:
    other = Trainer(config, device="cpu")
    for value in other.smooth.parameters():
        nn.init.normal_(value)
    trainer = Trainer(config, device="cpu")
    with pytest.raises(ModelError, match="train_near: no checkpoint to begin with"):
        trainer.begin_with(tmp_path / "train_near" / "checkpoint.pt")
    (tmp_path / "train_near").mkdir()
    other.save(tmp_path / "train_near" / "checkpoint.pt")
    trainer.begin_with(tmp_path / "train_near" / "checkpoint.pt")
    assert trainer.update == trainer.samples == 0
    for network in (trainer.network, trainer.smooth):
        pairs = zip(network.parameters(), other.smooth.parameters(), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_a_training_of_another_shape_is_no_beginning(config: TrainConfig, tmp_path: Path) -> None:
    wider = config.model_copy(update={"network": config.network.model_copy(update={"filters": (4, 8, 16)})})
    Trainer(wider, device="cpu").save(tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match="is not of this network's shape"):
        Trainer(config, device="cpu").begin_with(tmp_path / "checkpoint.pt")

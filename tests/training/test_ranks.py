"""Several processes train one network: no sample twice, one checkpoint, the same network as one process would get."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from sacroleak.core.config import load_config
from sacroleak.training.progress import progress
from sacroleak.training.ranks import ALONE, joined
from sacroleak.training.sampling import LOOKS, SyntheticPatches
from sacroleak.training.train_segmenter import TrainConfig, Trainer, main


@pytest.fixture
def config(repository: Path) -> TrainConfig:
    """Two updates of a network too small to be of use."""
    return load_config(repository / "configs/smoke/train_coarse.yaml", TrainConfig).model_copy(update={"updates": 2})


def test_without_torchrun_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined("cpu") as (rank, device):
        assert rank == ALONE
        assert rank.first
        assert device == "cpu"


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_sample_number_is_drawn_by_one_process(processes: int, config: TrainConfig, anatomies: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr("sacroleak.training.sampling.random_scene", lambda *_: None)
    monkeypatch.setattr("sacroleak.training.sampling.random_case",
                        lambda rng, scene, wild_share: rng.bit_generator.seed_seq.entropy)
    monkeypatch.setattr("sacroleak.training.sampling.draw_erased", lambda rng, case: 1)
    monkeypatch.setattr("sacroleak.training.sampling.to_sample",
                        lambda case, spec, erased: case[1] * LOOKS + (erased or 0))
    files = sorted(anatomies.glob("*.npz"))[:1]
    for number in range(processes):
        samples = iter(SyntheticPatches(files, config.network, seed=0, start=6 + number, every=processes))
        drawn += [next(samples) for _ in range(4)]  # type: ignore[misc]
    assert sorted(drawn) == list(range(6, 6 + 4 * processes))


@pytest.mark.slow
def test_two_processes_make_the_network_that_one_makes_of_both_their_samples(
        config: TrainConfig, anatomies: Path, manifest: Path, tmp_path: Path, repository: Path) -> None:
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
         "sacroleak.training.train_segmenter", "--config", str(tmp_path / "train.yaml"), "--anatomies", str(anatomies),
         "--manifest", str(manifest), "--out", str(tmp_path / "two")],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": "nonsense://nowhere"},
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("update 2 of 2") == 1, "one process tells"
    one = main(config.model_copy(update={"batch": 2}), anatomies=anatomies, manifest=manifest, out=tmp_path / "one")
    together, alone = (torch.load(path, weights_only=True) for path in (tmp_path / "two/checkpoint.pt", one))
    assert together["update"] == alone["update"] == 2
    assert together["samples"] == alone["samples"] == 4
    # The loss of a batch is not quite the mean of its samples' losses (Dice is taken over the batch), so the networks
    # are near each other and not equal; one that had seen the first process' samples only would be farther away.
    lone = main(config, anatomies=anatomies, manifest=manifest, out=tmp_path / "lone")
    half = torch.load(lone, weights_only=True)
    assert apart(together, alone) < apart(together, half)


def apart(a: dict[str, dict[str, torch.Tensor]], b: dict[str, dict[str, torch.Tensor]]) -> float:
    return float(sum(np.abs((a["network"][name] - b["network"][name]).numpy()).sum() for name in a["network"]))


def test_an_older_checkpoint_goes_on_at_the_right_sample(config: TrainConfig, tmp_path: Path) -> None:
    trainer = Trainer(config.model_copy(update={"batch": 3}), device="cpu")
    trainer.update = 5
    trainer.save(tmp_path / "checkpoint.pt")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["samples"]
    torch.save(state, tmp_path / "checkpoint.pt")
    trainer.load(tmp_path / "checkpoint.pt")
    assert trainer.samples == 15


def test_off_a_terminal_progress_is_a_plain_line_at_a_time() -> None:
    file = StringIO()
    with progress(40, console=Console(file=file, width=200)) as tell:
        tell({"update": 20, "loss": 1.25, "seconds": 7.4})
        tell({"update": 40, "loss": 1.0, "seconds": 15.2})
    assert file.getvalue() == "update 20 of 40: loss 1.2500, 7 s\nupdate 40 of 40: loss 1.0000, 15 s\n"


def test_on_a_terminal_progress_is_a_bar() -> None:
    console = Console(file=StringIO(), width=120, force_terminal=True)
    with progress(40, done=10, console=console) as tell:
        tell({"update": 20, "loss": 1.25, "seconds": 7.4})
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "20/40" in said
    assert "loss 1.250" in said


def test_without_a_console_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(40) as tell:
        tell({"update": 20, "loss": 1.25, "seconds": 7.4})
    assert capsys.readouterr() == ("", "")

"""`dvc repro` with the smoke parameters, in a copy of this checkout: the whole chain, and the second time nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """The checkout's files as they are now, in a Git repository of their own, set to the smoke parameters."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    folder = tmp_path / "copy"
    for name in filter(None, listing.stdout.split("\0")):
        source = repository / name
        if source.is_file() and not source.is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    shutil.copyfile(folder / "configs/smoke/params.yaml", folder / "params.yaml")
    return folder


def dvc(folder: Path, *words: str) -> str:
    """What one DVC command says; it and its stages run with this Python and keep to the folder."""
    around = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
              "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"), "DVC_GLOBAL_CONFIG_DIR": str(folder / ".dvc/tmp"),
              "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'artifacts/mlflow.db'}"}
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=folder, env=os.environ | around,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_chain_runs_once(copy: Path) -> None:
    first = dvc(copy, "repro")
    order = [line.split("'")[1] for line in first.splitlines() if line.startswith("Running stage")]
    assert order.index("prepare") < order.index("split") < order.index("train@near") < order.index("export@near")
    assert order.index("export@near") < order.index("extract_features") < order.index("train_classifier")
    assert order.index("train_classifier") < order.index("release") < order.index("evaluate")
    assert order.index("benchmark") < order.index("evaluate") < order.index("register")
    assert len(order) == len(dvc(copy, "stage", "list", "--name-only").split())
    assert (copy / "artifacts/smoke/released/CHAMPION").read_text() == "smoke\n"
    figures = json.loads((copy / "artifacts/smoke/metrics/segmenter.json").read_text())
    assert figures["network_mb"]["value"] > 0
    assert "benchmark" in json.loads((copy / "artifacts/smoke/metrics/about.json").read_text())
    assert json.loads((copy / "artifacts/smoke/registered.json").read_text())["name"] == "sacroleak-smoke"
    assert (copy / "artifacts/smoke/train_near/mlflow_run.txt").is_file()
    assert "# Results" in (copy / "artifacts/smoke/results.md").read_text()

    second = dvc(copy, "repro")
    assert "Running stage" not in second
    assert "up to date" in second

    config = copy / "configs/smoke/release.yaml"
    config.write_text(config.read_text().replace("version: 0.0.0", "version: 0.0.1"))
    changed = [line.split(":")[0] for line in dvc(copy, "status").splitlines() if line[:1].isalpha()]
    assert "release" in changed
    assert not {"prepare", "split", "benchmark", "train@fine", "export@fine"} & set(changed)

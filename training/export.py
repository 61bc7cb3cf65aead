"""Stage: the smoothed weights of a checkpoint become an ONNX network, and the two must agree."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sacroleak.core.config import load_config
from sacroleak.core.errors import ModelError
from sacroleak.core.whole import whole_file, write_whole
from sacroleak.models.architecture import build_network
from sacroleak.models.intensity import CHANNELS
from sacroleak.models.runtime import OpenVinoNetwork
from sacroleak.models.segmenter import Probabilities, export_onnx
from sacroleak.training.tracking import RUN_FILE, tracked
from sacroleak.training.train_segmenter import TrainConfig

LARGEST_DIFFERENCE = 2e-3
"""Probabilities of torch and of the CPU runtime, both in float32, may differ by this much."""


def main(config: TrainConfig, *, checkpoint: Path, out: Path) -> Path:
    """Write `out` (ONNX) and `<out>.json` (updates, largest difference). Raises ModelError if the runtimes disagree."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    network = build_network(config.network.filters)
    network.load_state_dict(state["smooth"])
    return exported(network, config, updates=int(state["update"]), out=out)


def exported(network: nn.Module, config: TrainConfig, *, updates: int, out: Path) -> Path:
    """As `main`, of a network in memory that was trained for so many updates."""
    network.eval()
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as temporary:
        export_onnx(network, config.network, temporary)
    difference = _difference(Probabilities(network), out, config.network.patch)
    if difference > LARGEST_DIFFERENCE:
        raise ModelError(f"{out.name}: exported probabilities differ by {difference:.4f}, allowed {LARGEST_DIFFERENCE}")
    write_facts(out, {"updates": updates, "largest_difference": difference})
    return out


def write_facts(network: Path, facts: Mapping[str, Any]) -> None:
    """What is known of an exported network, beside it as `.json`."""
    write_whole(network.with_suffix(".json"), json.dumps(facts, indent=2).encode() + b"\n")


def _difference(model: torch.nn.Module, exported: Path, patch: tuple[int, int, int]) -> float:
    channels = np.random.default_rng(0).uniform(-1, 1, (CHANNELS, *patch)).astype(np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(channels)[None])[0].numpy()
    got = OpenVinoNetwork(exported, threads=torch.get_num_threads())(channels)
    return float(np.abs(wanted - got).max())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    written = main(load_config(given.config, TrainConfig), checkpoint=given.checkpoint, out=given.out)
    if (given.checkpoint.parent / RUN_FILE).is_file():
        with tracked("export", "export", beside=given.checkpoint.parent) as tracker:
            tracker.file(written, "network")
            tracker.file(written.with_suffix(".json"), "network")

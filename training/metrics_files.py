"""Metrics files: flat JSON with value, n and interval, beside them what was measured when and where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sacroleak.core.whole import write_whole
from sacroleak.training.circumstances import Circumstances
from sacroleak.training.evaluation_run import ABOUT
from sacroleak.training.intervals import Figure

SEGMENTER, BENCHMARK = "segmenter", "benchmark"
SPEED, SOAK, GROWTH = "benchmark", "soak", "memory_growth_mb"
"""File of the figures of time, and what `make soak` measures of them."""
JOINED = {"network_speed": ("network_seconds", "network_share_of_peak"),
          "real_ct": ("real_ct_sacrum_dice", "baseline_real_ct_sacrum_dice")}
"""Figures that other stages measure and `segmenter.json` holds too, so that one file has all marks."""


def write_metrics(path: Path, figures: Mapping[str, Figure]) -> None:
    """Flat JSON, name -> value, n, low, high; written whole."""
    _write(path, {name: figure.as_json() for name, figure in figures.items()})


def read_metrics(path: Path) -> dict[str, Any]:
    """What `write_metrics` or `note_about` wrote; nothing where there is no file."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def note_about(metrics: Path, stage: str, about: Circumstances) -> None:
    """Say in `about.json` under which circumstances a stage's figures were measured; other stages stay."""
    _write(metrics / ABOUT, read_metrics(metrics / ABOUT) | {stage: about.model_dump(mode="json")})


def join_segmenter(metrics: Path) -> None:
    """Put the figures of other stages into `segmenter.json`, if they were measured on the same release as its own."""
    path = metrics / f"{SEGMENTER}.json"
    figures, about = read_metrics(path), read_metrics(metrics / ABOUT)
    if not figures:
        return
    digest = about.get(BENCHMARK, {}).get("bundle_digest")
    foreign = {name for names in JOINED.values() for name in names}
    joined = {name: figure for name, figure in figures.items() if name not in foreign}
    for stage, names in JOINED.items():
        if about.get(stage, {}).get("bundle_digest") == digest:
            measured = read_metrics(metrics / f"{stage}.json")
            joined |= {name: measured[name] for name in names if name in measured}
    if joined != figures:
        _write(path, joined)


def join_soak(metrics: Path) -> None:
    """Put the growth of memory that `make soak` measured into `benchmark.json`, if both are there."""
    path, soak = metrics / f"{SPEED}.json", read_metrics(metrics / f"{SOAK}.json")
    figures = read_metrics(path)
    if figures and GROWTH in soak and figures.get(GROWTH) != soak[GROWTH]:
        _write(path, figures | {GROWTH: soak[GROWTH]})


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())

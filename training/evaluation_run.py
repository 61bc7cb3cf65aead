"""What an evaluation leaves in MLflow: figures with their intervals, and pictures of best and worst scans."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from sacroleak.core.errors import NotAssessableError
from sacroleak.models.bundle import Bundle
from sacroleak.training.benchmark import load_case
from sacroleak.training.pictures import draw_case
from sacroleak.training.scored_case import CaseRecord, Segmenter
from sacroleak.training.tracking import Tracker

PICTURED = 2
"""Scans at each end."""
ABOUT = "about.json"


def note_evaluation(run: Tracker, config: BaseModel, *, bundle: Bundle, metrics: Path) -> None:
    """Settings, release, data digest and all figures that `metrics` holds of the benchmark."""
    about = json.loads((metrics / ABOUT).read_text(encoding="utf-8"))["benchmark"]
    run.settings(config)
    run.tags({"bundle": bundle.name, "bundle_digest": bundle.digest, "data_digest": about["data_digest"]})
    for name in ("segmenter", "leakage"):
        path = metrics / f"{name}.json"
        run.figures(json.loads(path.read_text(encoding="utf-8")))
        run.file(path, "metrics")
    run.text(bundle.card(), "MODEL_CARD.md")


def note_pictures(run: Tracker, records: Sequence[CaseRecord], *, benchmark: Path, segmenter: Segmenter) -> None:
    """Pictures `worst-1-…` and `best-1-…` of the scans in `benchmark`, segmented once more."""
    order = sorted(records, key=goodness)
    ends = [("worst", order[:PICTURED]), ("best", order[PICTURED:][::-1][:PICTURED])]
    for end, chosen in ends:
        for number, record in enumerate(chosen, start=1):
            case = load_case(benchmark / f"{record.case_id}.npz").case
            try:
                found = segmenter.segment(case.ct)
            except NotAssessableError:
                found = None
            title = f"{record.case_id}: {described(record)}; truth green, result red"
            run.picture(draw_case(case, found, title), f"cases/{end}-{number}-{record.case_id}.png")


def goodness(record: CaseRecord) -> float:
    """Dice of the cement, without cement that of the sacrum; less one for each leak missed or made up."""
    if record.model is None:
        return -100.0
    dice = record.model.cement_dice
    if dice is None:
        dice = record.anatomy.dice.get("sacrum") if record.anatomy is not None else None
    missed = sum(leak.found_as is None for leak in record.model.leaks)
    return (dice or 0.0) - missed - len(record.model.false_leaks)


def described(record: CaseRecord) -> str:
    """One line on what came out."""
    if record.model is None:
        return "not assessable"
    found = sum(leak.found_as is not None for leak in record.model.leaks)
    dice = "none" if record.model.cement_dice is None else f"{record.model.cement_dice:.2f}"
    return (f"cement Dice {dice}, {found} of {len(record.model.leaks)} leaks found, "
            f"{len(record.model.false_leaks)} false")

"""Stage: leak parts as the released networks see them, measured, with what they truly are; for the leak classifier.

    python -m sacroleak.training.extract_features                          simulated scans of train patients
    python -m sacroleak.training.extract_features --listed scans.csv       and scans with a radiologist's list of sites
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import track

from sacroleak.core.config import load_config
from sacroleak.core.errors import ManifestError, NotAssessableError, SeriesError
from sacroleak.core.read import read
from sacroleak.core.sources import Source, discover
from sacroleak.core.structures import Site
from sacroleak.core.whole import remove_leftovers, write_whole
from sacroleak.models.assess import Segmenter
from sacroleak.models.bundle import Bundle, default_bundle, load_bundle
from sacroleak.models.classifier import Matrix
from sacroleak.models.limits import shipped_limits
from sacroleak.models.networks import load_segmenter
from sacroleak.training.leak_cases import LeakCasesConfig, Order, kept_case, orders
from sacroleak.training.part_table import CaseFacts, joined, rows_of, save_table
from sacroleak.training.processes import as_they_end
from sacroleak.training.seen_cases import kept_segmentation, segmentation_key, true_segmentation

PREDICTED, TRUE = "predicted.npz", "true_masks.npz"
"""Tables of a run: parts in what the networks see, and parts in the truth's own masks."""
ABOUT = "about.json"
"""Which release saw the scans, and the folder of `seen` with what it saw."""

Rows = tuple[CaseFacts, Matrix, Matrix]


class ExtractConfig(BaseModel):
    """`configs/extract_features.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    cases: Annotated[tuple[LeakCasesConfig, ...], Field(min_length=1)]
    match_share: float = Field(gt=0, le=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a process is told about one scan."""

    order: Order
    bundle: Path
    out: Path
    match_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What a run reads and where it writes. `listed`: manifest of scans of which only the sites are known."""

    anatomies: Path
    manifest: Path
    out: Path
    listed: Path | None = None


def main(config: ExtractConfig, *, bundle: Bundle, places: Places, workers: int = 0) -> None:
    """Write PREDICTED and TRUE into `places.out`, where scans and segmentations are kept for the next run.

    `workers` 0: a process for each core this process may run on.
    """
    out = places.out
    for folder in (out / "scans", out / "seen" / segmentation_key(bundle)):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
    work = [Work(order=order, bundle=bundle.folder, out=out, match_share=config.match_share)
            for order in orders(config.cases, anatomies=places.anatomies, manifest=places.manifest)]
    done = list(track(as_they_end(rows_of_case, work, workers=workers or len(os.sched_getaffinity(0))), total=len(work),
                      description="leak parts"))
    done.sort(key=lambda pair: pair[0][0].name)
    of_lists = [] if places.listed is None else list(listed_rows(places.listed, bundle, out=out))
    save_table(out / PREDICTED, joined([seen for seen, _ in done] + of_lists))
    save_table(out / TRUE, joined([true for _, true in done]))
    about = {"bundle": bundle.name, "segmentation": segmentation_key(bundle)}
    write_whole(out / ABOUT, (json.dumps(about, indent=1) + "\n").encode())


def rows_of_case(work: Work) -> tuple[Rows, Rows]:
    """Parts of one simulated scan in what the networks see and in the true masks."""
    case = kept_case(work.order, work.out / "scans")
    facts = CaseFacts(name=case.name, patient=case.patient, sites=case.sites, far=case.far)
    bundle, segmenter = _segmenter(work.bundle)
    limits, leaks, truth = shipped_limits(), case.case.leaks.labels.astype(np.uint8), case.case.truth
    true = (facts, *rows_of(true_segmentation(case.case), limits, leaks=leaks, truth=truth,
                            match_share=work.match_share))
    path = work.out / "seen" / segmentation_key(bundle) / f"{case.name}.npz"
    try:
        segmentation = kept_segmentation(case.case.ct, path, segmenter)
    except NotAssessableError:
        return _unassessed(facts), true
    return (facts, *rows_of(segmentation, limits, leaks=leaks, truth=truth, match_share=work.match_share)), true


def listed_rows(manifest: Path, bundle: Bundle, *, out: Path) -> Iterator[Rows]:
    """Parts of each scan of a manifest with the columns `case_id`, `path`, `sites` (separated by spaces, empty without
    a leak) and, if one patient has several scans, `patient`.

    Raises ManifestError for an unknown site. A scan that cannot be read counts as one that cannot be judged.
    """
    known = _lists(manifest)
    _, segmenter = _segmenter(bundle.folder)
    for source in discover([manifest]):
        facts = known[source.case_id]
        path = out / "seen" / segmentation_key(bundle) / f"listed-{source.case_id}.npz"
        yield _listed(source, facts, segmenter, path)


def _listed(source: Source, facts: CaseFacts, segmenter: Segmenter, path: Path) -> Rows:
    try:
        segmentation = kept_segmentation(read(source), path, segmenter)
    except (NotAssessableError, SeriesError):
        return _unassessed(facts)
    return facts, *rows_of(segmentation, shipped_limits())


def _lists(manifest: Path) -> dict[str, CaseFacts]:
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise ManifestError("manifest: cannot be read as a CSV file in UTF-8") from None
    found = {}
    for number, row in enumerate(rows, start=2):
        if "sites" not in row or "case_id" not in row:
            raise ManifestError("manifest: columns case_id, path and sites are wanted")
        try:
            sites = tuple(sorted({Site(word) for word in (row["sites"] or "").split()}))
        except ValueError:
            raise ManifestError(f"manifest, row {number}: unknown site, wanted {', '.join(Site)}") from None
        case_id = (row["case_id"] or "").strip()
        found[case_id] = CaseFacts(name=case_id, patient=row.get("patient") or case_id, sites=sites, listed=True)
    return found


def _unassessed(facts: CaseFacts) -> Rows:
    none = joined([])
    return facts.model_copy(update={"assessed": False}), none.matrix, none.truth


@cache
def _segmenter(folder: Path) -> tuple[Bundle, Segmenter]:
    """One a process."""
    bundle = load_bundle(folder)
    return bundle, load_segmenter(bundle, threads=1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/extract_features.yaml"))
    parser.add_argument("--configs", type=Path, default=Path("configs"), help="folder of release.yaml and the others")
    parser.add_argument("--exported", type=Path, help="folder of exported networks not yet released")
    parser.add_argument("--bundle", type=Path, help="folder of a release; without it and --exported the champion")
    parser.add_argument("--anatomies", type=Path, default=Path("artifacts/anatomies"))
    parser.add_argument("--manifest", type=Path, default=Path("data_manifests/anatomies.csv"))
    parser.add_argument("--listed", type=Path, help="CSV of scans and their sites: case_id, path, sites[, patient]")
    parser.add_argument("--out", type=Path, default=Path("artifacts/leak_cases"))
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one for each core")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    if given.exported is None:
        chosen = default_bundle() if given.bundle is None else load_bundle(given.bundle)
    else:
        # Loads torch; the worker processes import this file too and must not pay for that.
        from sacroleak.training.release import provisional

        chosen = provisional(given.configs, given.exported, given.out / "networks", manifest=given.manifest,
                             now=datetime.now(UTC))
    main(load_config(given.config, ExtractConfig), bundle=chosen, workers=given.workers,
         places=Places(anatomies=given.anatomies, manifest=given.manifest, out=given.out, listed=given.listed))

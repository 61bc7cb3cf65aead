"""Leak parts of many scans with their measures and what they truly are: what the classifier learns from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sacroleak.core.errors import InputError
from sacroleak.core.structures import Site
from sacroleak.core.whole import whole_file
from sacroleak.models.classifier import INPUTS, LABELS, NOT_A_LEAK, Matrix, input_row
from sacroleak.models.feature_vector import feature_vector
from sacroleak.models.limits import RuleLimits
from sacroleak.models.parts import measure_scan
from sacroleak.models.rules import site_scores
from sacroleak.models.segmentation import Segmentation
from sacroleak.training.simulation.case import LeakTruth

SWALLOWED = 0.5
"""A part that holds so much of a true leak is one, however large the rest of it is."""


class CaseFacts(BaseModel):
    """One scan. `patient`: whose bones. `sites`: the true ones, known of every scan. `listed`: nothing else is known of
    its leaks, no masks. `assessed`: whether it could be judged. `far`: far from what patients show.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    patient: str
    sites: tuple[Site, ...]
    far: bool = False
    listed: bool = False
    assessed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartTable:
    """`matrix`: (n, inputs), columns INPUTS. `truth`: (n, 6) 0 or 1, columns LABELS; NaN where only a list is known.
    `case_of`: (n,) each part's number in `cases`. `number`: (n,) its number within its scan, from 1.
    """

    cases: tuple[CaseFacts, ...]
    matrix: Matrix
    truth: Matrix
    case_of: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        """Whose bones each part is of; (n,)."""
        names = np.array([case.patient for case in self.cases], dtype=np.str_)
        return np.asarray(names[self.case_of]) if len(names) else names

    def of_cases(self, chosen: Sequence[int]) -> PartTable:
        """The scans of these numbers and their parts, numbered anew."""
        place = {old: new for new, old in enumerate(chosen)}
        rows = np.array([int(case) in place for case in self.case_of], dtype=np.bool_)
        case_of = np.array([place[int(case)] for case in self.case_of[rows]], dtype=np.int64)
        return PartTable(cases=tuple(self.cases[n] for n in chosen), matrix=self.matrix[rows], truth=self.truth[rows],
                         case_of=case_of, number=self.number[rows])

    def with_lists_only(self, chosen: Sequence[int]) -> PartTable:
        """The same, but of these scans no more is known than a radiologist's list of sites."""
        hidden = set(chosen)
        truth = self.truth.copy()
        truth[np.isin(self.case_of, list(hidden))] = np.nan
        cases = tuple(case.model_copy(update={"listed": True}) if n in hidden else case
                      for n, case in enumerate(self.cases))
        return replace(self, cases=cases, truth=truth)


def rows_of(segmentation: Segmentation, limits: RuleLimits, *,
            leaks: npt.NDArray[np.uint8] | None = None, truth: tuple[LeakTruth, ...] = (),
            match_share: float = 0.1) -> tuple[Matrix, Matrix]:
    """Inputs (n, inputs) and truth (n, 6) of every part of one scan, largest part first.

    `leaks` holds true leak numbers on the whole scan's grid; without it the truth is NaN.
    """
    found = measure_scan(segmentation, limits)
    if found is None:
        return np.zeros((0, len(INPUTS))), np.zeros((0, len(LABELS)))
    view, measured = found
    matrix = np.array([input_row(feature_vector(m.features), site_scores(m.features, limits)) for m in measured])
    if leaks is None:
        return matrix.reshape(-1, len(INPUTS)), np.full((len(measured), len(LABELS)), np.nan)
    box = tuple(slice(a, a + n) for a, n in zip(segmentation.start, segmentation.cement.geometry.shape, strict=True))
    inside = leaks[box]
    values = [inside[tuple(view.cement.index[m.part.rows].T)] for m in measured]
    sizes = np.bincount(leaks[leaks > 0], minlength=256)
    labels = [label_of(v, sizes, truth, match_share=match_share) for v in values]
    return matrix.reshape(-1, len(INPUTS)), np.array(labels, dtype=np.float64).reshape(-1, len(LABELS))


def label_of(values: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64], truth: tuple[LeakTruth, ...], *,
             match_share: float) -> npt.NDArray[np.float64]:
    """What a part truly is, from the true leak number (0: none) of each of its voxels; (6,), columns LABELS.

    It is of a site if at least `match_share` of it is, or if it holds half of such a leak; if it is a leak's by that
    measure only with all sites together, of the site it holds most of. `sizes`: voxels of each true leak.
    """
    held = np.bincount(values, minlength=len(sizes))
    voxels = dict.fromkeys(Site, 0)
    sites: set[Site] = set()
    for leak in truth:
        voxels[leak.site] += int(held[leak.number])
        if held[leak.number] > 0 and held[leak.number] >= SWALLOWED * sizes[leak.number]:
            sites.add(leak.site)
    least = match_share * len(values)
    sites |= {site for site, count in voxels.items() if count > 0 and count >= least}
    total = sum(voxels.values())
    if not sites and total > 0 and total >= least:
        sites = {max(voxels, key=lambda site: voxels[site])}
    wanted = {site.value for site in sites} or {NOT_A_LEAK}
    return np.array([float(label in wanted) for label in LABELS])


def joined(parts: Sequence[tuple[CaseFacts, Matrix, Matrix]]) -> PartTable:
    """One table from the rows of each scan."""
    counts = [len(matrix) for _, matrix, _ in parts]
    return PartTable(
        cases=tuple(facts for facts, _, _ in parts),
        matrix=np.concatenate([np.zeros((0, len(INPUTS))), *(matrix for _, matrix, _ in parts)]),
        truth=np.concatenate([np.zeros((0, len(LABELS))), *(truth for _, _, truth in parts)]),
        case_of=np.repeat(np.arange(len(parts), dtype=np.int64), counts),
        number=np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(1, n + 1) for n in counts)]))


def save_table(path: Path, table: PartTable) -> None:
    """Write one .npz, whole or not at all."""
    cases = json.dumps([case.model_dump(mode="json") for case in table.cases])
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, inputs=np.array(INPUTS), labels=np.array(LABELS),
                            cases=np.array(cases), matrix=table.matrix, truth=table.truth, case_of=table.case_of,
                            number=table.number)


def load_table(path: Path) -> PartTable:
    """Read what `save_table` wrote. Raises InputError if it is not there or holds other measures than are taken now."""
    if not path.is_file():
        raise InputError(f"{path.name}: no such table in {path.parent.name}; run extract_features first")
    with np.load(path, allow_pickle=False) as data:
        if tuple(data["inputs"]) != INPUTS or tuple(data["labels"]) != LABELS:
            raise InputError(f"{path.name}: holds other measures than this version takes; run extract_features again")
        cases = tuple(CaseFacts.model_validate(case) for case in json.loads(str(data["cases"])))
        return PartTable(cases=cases, matrix=data["matrix"], truth=data["truth"], case_of=data["case_of"],
                         number=data["number"])

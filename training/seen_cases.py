"""What the networks see of a scan, kept on disk, since it takes longest; and what they would see without an error."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

import sacroleak.models
from sacroleak.core.errors import NotAssessableError
from sacroleak.core.geometry import Geometry
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.core.whole import whole_file
from sacroleak.models.assess import Segmenter
from sacroleak.models.bundle import Bundle
from sacroleak.models.label_grids import labels_on
from sacroleak.models.networks import WORKING_MM, sacrum_coverage
from sacroleak.models.segmentation import Segmentation
from sacroleak.training.simulation.case import Case

SEGMENTED_BY = ("networks.py", "near.py", "cement.py", "columns.py", "rods.py", "canal.py", "distance.py", "guessed.py",
                "mirror.py", "under.py", "metal.py", "locate.py", "resample.py", "intensity.py", "runtime.py",
                "int8.py", "effort.py", "segmentation.py", "faint.py")
"""Files of the models' room that decide what is seen of a scan."""


def segmentation_key(bundle: Bundle) -> str:
    """16 hex digits over networks and code: what was seen with others is not taken. The classifier does not count."""
    folder = Path(sacroleak.models.__file__).parent
    content = [[entry.model_dump(mode="json") for _, entry in sorted(bundle.index.networks.items())],
               [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SEGMENTED_BY]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def kept_segmentation(ct: Volume, path: Path, segmenter: Segmenter) -> Segmentation:
    """The segmentation in `path`, made first if it is not there. Raises NotAssessableError as the segmenter did."""
    if not path.is_file():
        try:
            _save(path, segmenter.segment(ct), ())
        except NotAssessableError as error:
            _save(path, None, error.reasons)
    return load_segmentation(path, ct)


def true_segmentation(case: Case) -> Segmentation:
    """What networks that never err would hand on: the truth's bones on the working grid, and the true cement."""
    grid = case.ct.geometry
    corners = grid.corners_lps_mm()
    low, high = corners.min(axis=0), corners.max(axis=0)
    i, j, k = (int(n) for n in np.floor((high - low) / WORKING_MM) + 1)
    working = Geometry.axis_aligned(origin_lps_mm=low, spacing_mm=WORKING_MM, shape=(i, j, k))
    anatomy = labels_on(case.anatomy, working)
    return Segmentation(
        anatomy=anatomy, cement=case.cement, ct=case.ct, start=(0, 0, 0),
        metal_ml=float(np.count_nonzero(case.metal.labels)) * grid.voxel_ml,
        sacrum_coverage=sacrum_coverage(anatomy, grid))


def _save(path: Path, seen: Segmentation | None, reasons: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {"reasons": np.array(json.dumps(reasons))}
    if seen is not None:
        facts = {"start": seen.start, "metal_ml": seen.metal_ml, "sacrum_coverage": seen.sacrum_coverage}
        arrays |= {"facts": np.array(json.dumps(facts)), "anatomy": seen.anatomy.labels.astype(np.uint8),
                   "affine": seen.anatomy.geometry.affine, "cement": seen.cement.labels.astype(np.uint8)}
        if seen.certainty is not None:
            arrays["certainty"] = seen.certainty
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_segmentation(path: Path, ct: Volume) -> Segmentation:
    """What `kept_segmentation` has kept. Raises NotAssessableError as the segmenter did."""
    with np.load(path, allow_pickle=False) as data:
        if "facts" not in data.files:
            raise NotAssessableError(tuple(json.loads(str(data["reasons"]))))
        facts, affine = json.loads(str(data["facts"])), data["affine"]
        anatomy, cement = data["anatomy"], data["cement"].astype(bool)
        certainty = data["certainty"] if "certainty" in data.files else None
    start = np.array(facts["start"])
    part = ct.crop(start, start + cement.shape)
    return Segmentation(
        anatomy=LabelMap(labels=anatomy, geometry=Geometry(affine=affine, shape=anatomy.shape)),
        cement=LabelMap(labels=cement, geometry=part.geometry), ct=part, start=tuple(facts["start"]),
        metal_ml=facts["metal_ml"], sacrum_coverage=facts["sacrum_coverage"], certainty=certainty)

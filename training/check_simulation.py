"""Stage: measure that simulated patients are what they are said to be; writes metrics/simulation.json.

Cement is grown and leaks are made on a 1 mm grid around the sacrum, without tissue and scanner; the label rules are
checked on whole scans of a coarse grid.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import track
from scipy.ndimage import binary_dilation

from sacroleak.core.geometry import Points
from sacroleak.core.structures import Structure
from sacroleak.core.whole import write_whole
from sacroleak.training.circumstances import commit, machine
from sacroleak.training.intervals import Bootstrap, Figure, mean_of, median_of, wilson
from sacroleak.training.simulation.case import Case, centred_grid
from sacroleak.training.simulation.cases import CaseRequest, make_case, operate_until
from sacroleak.training.simulation.cohort import SimulateConfig, draw_plan, shipped_cohorts
from sacroleak.training.simulation.operation import Operation
from sacroleak.training.simulation.scene import Scene, draw_warp, place, still
from sacroleak.training.simulation.sources import anatomy_of, find_anatomies
from sacroleak.training.simulation.truth import missing_leaks

Mask = npt.NDArray[np.bool_]
Region = Callable[[Scene, Operation], Mask]

STREAM = 41_351
AROUND_MM = (190.0, 150.0, 170.0)
"""The sacrum with both joints and what lies within some centimetres of it."""
FINE_MM, COARSE_MM = 1.0, 2.5
WITHIN = 0.03
"""A body of cement is right if its volume is so near to the drawn one."""
INSIDE = 0.95
"""A leak lies in its compartment if so much of it does: partial voxels at a border belong to both sides."""
TRACK_MM = 3.5
"""A 13 gauge needle's radius of 1.2 mm, half as much again for cement around it, and a voxel's half diagonal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One patient. Volumes as found / drawn, one for each injection that found a way; shares of each leak inside its
    compartment, by mechanism; voxels that break a rule.
    """

    injections: int
    volume_ratios: tuple[float, ...]
    leaks: tuple[tuple[str, float], ...]
    asked: int
    missing: int
    stray_voxels: int
    broken: tuple[str, ...]


def check(config: SimulateConfig, cohort: str, number: int, anatomies: tuple[Path, ...]) -> Checked:
    """One patient of a cohort, operated on at FINE_MM and scanned whole at COARSE_MM."""
    rng = np.random.default_rng((STREAM, number))
    plan = draw_plan(rng, config.cohort(cohort), config.mechanisms)
    anatomy = anatomy_of(anatomies, number, rng)
    warp = replace(still(anatomy), matrix=draw_warp(rng, anatomy, strength=0.5).matrix)
    scene = place(anatomy, centred_grid(AROUND_MM, (FINE_MM,) * 3), warp, rng)
    operation = operate_until(rng, scene, plan)
    sacrum = scene.distance["sacrum"]
    drawn = [injection.volume_ml for injection in plan.injections]
    coarse = make_case(rng, anatomy, plan, CaseRequest(pixel_mm=COARSE_MM, thickness_mm=COARSE_MM))
    return Checked(
        injections=len(drawn), volume_ratios=tuple(_ratios(operation, scene, drawn)),
        leaks=tuple(_inside(operation, scene)), asked=len(plan.leaks),
        missing=len(missing_leaks(plan.leaks, [leak.mechanism for leak in operation.leaks])),
        stray_voxels=sum(int(np.count_nonzero((body.distance < 0) & (sacrum > 0))) for body in operation.bodies),
        broken=tuple(broken_rules(coarse)))


def broken_rules(case: Case) -> Iterator[str]:
    """Names of the label rules that a scan breaks."""
    anatomy, cement, metal = case.anatomy.labels, case.cement.labels.astype(bool), case.metal.labels.astype(bool)
    leaked = case.leaks.labels > 0
    if (leaked & ~cement).any():
        yield "leak_is_cement"
    if (leaked & (anatomy == Structure.SACRUM)).any():
        yield "leak_is_outside_bone"
    if (cement & metal).any():
        yield "cement_is_not_metal"
    if {leak.number for leak in case.truth} != set(np.unique(case.leaks.labels).tolist()) - {0}:
        yield "truth_lists_the_map"
    if int(anatomy.max(initial=0)) > Structure.L5:
        yield "anatomy_has_no_cement"


def figures(checked: list[Checked], bootstrap: Bootstrap) -> dict[str, Figure]:
    """Everything of `metrics/simulation.json`."""
    ratios = [ratio for item in checked for ratio in item.volume_ratios]
    off = [100 * abs(ratio - 1) for ratio in ratios]
    leaks = [leak for item in checked for leak in item.leaks]
    found = {
        "cement_volume_within_3pct": wilson(sum(abs(r - 1) <= WITHIN for r in ratios), len(ratios)),
        "cement_volume_error_median_pct": median_of(off, bootstrap),
        "cement_volume_error_max_pct": Figure(value=max(off, default=None), n=len(off)),
        "injections_that_found_a_way": wilson(len(ratios), sum(item.injections for item in checked)),
        "leaks_inside_their_compartment": wilson(sum(share >= INSIDE for _, share in leaks), len(leaks)),
        "leak_share_inside_its_compartment": mean_of([share for _, share in leaks], bootstrap),
        "leaks_asked_for_and_made": wilson(sum(i.asked - i.missing for i in checked), sum(i.asked for i in checked)),
        "cases_without_intraosseous_cement_outside_bone": wilson(sum(i.stray_voxels == 0 for i in checked),
                                                                 len(checked)),
        "cases_that_keep_every_label_rule": wilson(sum(not i.broken for i in checked), len(checked)),
    }
    for name in sorted({mechanism for mechanism, _ in leaks}):
        own = [share for mechanism, share in leaks if mechanism == name]
        found[f"leaks_inside_their_compartment[{name}]"] = wilson(sum(share >= INSIDE for share in own), len(own))
    return found


def main(config: SimulateConfig, *, count: int, anatomies: tuple[Path, ...], metrics: Path, now: datetime) -> bool:
    """Half of `count` from either cohort; writes `simulation.json` and its lines of `about.json`. True if all hold."""
    cohorts = ("reference", "training")
    checked = [check(config, cohorts[number % 2], number, anatomies)
               for number in track(range(count), description="checking")]
    found = figures(checked, Bootstrap(resamples=1000, seed=1))
    metrics.mkdir(parents=True, exist_ok=True)
    content = {name: figure.as_json() for name, figure in found.items()}
    write_whole(metrics / "simulation.json", (json.dumps(content, indent=1) + "\n").encode())
    about = metrics / "about.json"
    known = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
    known["simulation"] = {"date": now.date().isoformat(), "machine": machine(), "commit": commit()}
    write_whole(about, (json.dumps(known, indent=1) + "\n").encode())
    return all(found[name].value in (1.0, None) for name in (
        "cement_volume_within_3pct", "leaks_inside_their_compartment", "cases_that_keep_every_label_rule",
        "cases_without_intraosseous_cement_outside_bone"))


def _ratios(operation: Operation, scene: Scene, drawn: list[float]) -> Iterator[float]:
    """Found / drawn volume, body by body; bodies keep the order of the injections that found a way."""
    found = [float(np.count_nonzero((body.distance < 0) & (scene.distance["sacrum"] <= 0))) * scene.geometry.voxel_ml
             for body in operation.bodies]
    if len(found) == len(drawn):
        yield from (ml / asked for ml, asked in zip(found, drawn, strict=True))
        return
    for ml in found:  # one of two found no way: the nearer volume is the one that did
        yield ml / min(drawn, key=lambda asked, ml=ml: abs(asked - ml))  # type: ignore[misc]


def _inside(operation: Operation, scene: Scene) -> Iterator[tuple[str, float]]:
    for leak in operation.leaks:
        outside = (leak.distance < 0) & (scene.distance["sacrum"] > 0)
        if outside.any():
            region = REGIONS[leak.mechanism](scene, operation)
            yield leak.mechanism, float(region[outside].mean())


def _hips(scene: Scene) -> npt.NDArray[np.float32]:
    return np.minimum(scene.distance["hip_left"], scene.distance["hip_right"])


def _in_front(scene: Scene) -> Mask:
    """Before the sacrum's closed surface, or in one of its holes: where veins and the presacral space are."""
    surface = scene.pelvic_surface
    forward = np.gradient(surface, axis=1) <= 0.2 * scene.geometry.spacing_mm[1]
    free = (scene.distance["canal"] > 0) & (_hips(scene) > 0) & (scene.distance["l5"] > 0)
    result: Mask = free & (forward | (surface <= 1.0)) & (surface < 18.0)
    return result


def _in_canal(scene: Scene, *, ventral: bool) -> Mask:
    """The canal's half by the middle of each level; a millimetre of the other half is its border."""
    canal = scene.distance["canal"]
    inside = canal <= 0
    y = scene.axes[1][None, :, None].astype(np.float32)
    count = np.maximum(inside.sum(axis=(0, 1)), 1)
    middle = (inside * y).sum(axis=(0, 1)) / count
    half = y - middle[None, None, :] if not ventral else middle[None, None, :] - y
    result: Mask = (canal <= 1.0) & (half >= -1.5)
    return result


def _along_needles(scene: Scene, operation: Operation) -> Mask:
    points = np.stack(np.meshgrid(*scene.axes, indexing="ij"), axis=-1).astype(np.float32)
    near = np.zeros(scene.geometry.shape, dtype=bool)
    for needle in operation.tracks:
        near |= _distance_to_axis(points, needle.tip_lps_mm, needle.direction) <= TRACK_MM
    result: Mask = near & (scene.distance["canal"] > 0)
    return result


def _distance_to_axis(points: npt.NDArray[np.float32], start: Points, way: Points) -> npt.NDArray[np.float32]:
    offset = points - start.astype(np.float32)
    along = np.maximum(offset @ way.astype(np.float32), 0)
    away: npt.NDArray[np.float32] = np.linalg.norm(offset - along[..., None] * way.astype(np.float32), axis=-1)
    return away


def _free(scene: Scene) -> Mask:
    """Outside of every bone and of the canal."""
    names = ("sacrum", "canal", "hip_left", "hip_right", "l5")
    result: Mask = np.minimum.reduce([scene.distance[name] for name in names]) > 0
    return result


def _in_joint(scene: Scene, _operation: Operation) -> Mask:
    result: Mask = _free(scene) & (scene.distance["sacrum"] + _hips(scene) < 9.0)
    return result


def _in_disc(scene: Scene, _operation: Operation) -> Mask:
    result: Mask = binary_dilation(scene.distance["disc"] <= 0, iterations=1)
    return result


def _behind(scene: Scene, _operation: Operation) -> Mask:
    result: Mask = _free(scene) & (np.gradient(scene.pelvic_surface, axis=1) > 0)
    return result


def _in_hole(scene: Scene, _operation: Operation) -> Mask:
    """Within the sacrum's outline but not in bone nor canal, or a little before it."""
    result: Mask = _free(scene) & (scene.pelvic_surface <= 5.0)
    return result


REGIONS: dict[str, Region] = {
    **dict.fromkeys(("foraminal_vein", "lateral_sacral_vein", "median_sacral_vein", "cortical_defect"),
                    lambda scene, _operation: _in_front(scene)),
    "needle_track": _along_needles, "epidural": lambda scene, _operation: _in_canal(scene, ventral=True),
    "dorsal_epidural": lambda scene, _operation: _in_canal(scene, ventral=False), "foramen": _in_hole,
    "sacroiliac_joint": _in_joint, "disc": _in_disc, "soft_tissue": _behind,
}
"""Where a leak of each mechanism may lie, said from the true anatomy and apart from the code that makes it."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--anatomies", type=Path, help="prepared anatomies; procedural pelvises if not given")
    parser.add_argument("--metrics", type=Path, default=Path("metrics"))
    given = parser.parse_args()
    os.nice(10)
    holds = main(shipped_cohorts(), count=given.count, anatomies=find_anatomies(given.anatomies),
                 metrics=given.metrics, now=datetime.now(UTC))
    raise SystemExit(0 if holds else 1)

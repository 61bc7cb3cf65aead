"""Whole scans with known truth, one plan each: for the demo, for `simulate`, and for measuring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import Case, centred_grid, draw_injection, scan
from sacroleak.training.simulation.leak import OF_SITE
from sacroleak.training.simulation.operation import Operation, operate
from sacroleak.training.simulation.plan import LeakPlan, Plan
from sacroleak.training.simulation.procedural import procedural_pelvis
from sacroleak.training.simulation.scanner import QUIET, Scanner, draw_scanner
from sacroleak.training.simulation.scene import Scene, draw_warp, place, still
from sacroleak.training.simulation.slices import depths_of, reslice, slices_of
from sacroleak.training.simulation.tissue import TissueStyle, draw_style

FIELD_OF_VIEW_MM = (230.0, 180.0, 190.0)
"""Both sacroiliac joints, the skin behind, L5 above and the coccyx below."""
SMALLEST_LEAK_ML = 0.08
"""A leak asked for by name is drawn again until it is at least this large outside the bone."""
LEAST_SHARE = 0.5
"""Likewise of the volume asked for, where one was."""
ATTEMPTS = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NamedCase:
    """A simulated case under the name it is saved by."""

    name: str
    case: Case

    @property
    def ct(self) -> Volume:
        """The scan."""
        return self.case.ct

    @property
    def anatomy(self) -> LabelMap:
        """Structure 0-5 as before cement."""
        return self.case.anatomy

    @property
    def cement(self) -> LabelMap:
        """True where cement is."""
        return self.case.cement

    @property
    def leaks(self) -> LabelMap:
        """0, or the number of the leak."""
        return self.case.leaks

    @property
    def leaked_ml(self) -> Mapping[Site, float]:
        """Leaked volume by site, mL."""
        total: dict[Site, float] = {}
        for leak in self.case.truth:
            total[leak.site] = total.get(leak.site, 0.0) + leak.volume_ml
        return total

    @property
    def cement_ml(self) -> float:
        """All cement that lies in the sacrum or leaked from it, mL."""
        other = np.isin(self.case.anatomy.labels, (Structure.HIP_LEFT, Structure.HIP_RIGHT, Structure.L5))
        sacral = self.case.cement.labels & ~(other & (self.case.leaks.labels == 0))
        return float(np.count_nonzero(sacral)) * self.case.ct.geometry.voxel_ml


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRequest:
    """How one patient is scanned; None: drawn. Slices are `thickness_mm` thick, what the scanner says unless given, and
    lie `increment_mm` apart, a thickness unless given. A real CT keeps its own grid.
    """

    size_mm: tuple[float, float, float] = FIELD_OF_VIEW_MM
    pixel_mm: float | None = None
    thickness_mm: float | None = None
    increment_mm: float | None = None
    scanner: Scanner | None = None
    style: TissueStyle | None = None


def demo_cases(seed: int) -> Iterator[NamedCase]:
    """Six scans of six procedural pelvises: no cement, cement without leak, and one leak of each of the four sites."""
    sites = (Site.SACRAL_VENOUS_PLEXUS, Site.PUNCTURE_PATH, Site.ANTERIOR_EPIDURAL_SPACE, Site.ANTERIOR_SACRAL_SPACE)
    asked: list[tuple[str, tuple[float, ...], tuple[str, ...]]] = [("no-cement", (), ()), ("no-leak", (4.0,), ())]
    asked += [(str(site).replace("_", "-"), (4.0,), OF_SITE[site][:1]) for site in sites]
    for number, (name, volumes, leaks) in enumerate(asked):
        rng = np.random.default_rng((seed, number))
        anatomy = procedural_pelvis(rng)
        plan = plan_of(rng, volumes, leaks)
        yield NamedCase(name=f"demo-{number + 1}-{name}", case=planned_case(rng, anatomy, plan, scanner=QUIET))


def plan_of(rng: np.random.Generator, volumes_ml: Sequence[float], leaks: Sequence[str]) -> Plan:
    """One injection of each volume, sides and approaches drawn, and one leak of each mechanism."""
    return Plan(injections=tuple(draw_injection(rng, ml) for ml in volumes_ml),
                leaks=tuple(LeakPlan(mechanism=name) for name in leaks))


def planned_case(rng: np.random.Generator, anatomy: Anatomy, plan: Plan, *, scanner: Scanner,
                 slice_mm: float = 1.0, pixel_mm: float = 1.0) -> Case:
    """A plan carried out on a small field of view, about 230 mm wide, on slices as thick as they are apart."""
    request = CaseRequest(pixel_mm=pixel_mm, thickness_mm=slice_mm, scanner=scanner)
    return make_case(rng, anatomy, plan, request)


def make_case(rng: np.random.Generator, anatomy: Anatomy, plan: Plan, request: CaseRequest) -> Case:
    """A plan carried out and scanned, on the patient's own real CT if the anatomy has one.

    Leaks are drawn again until all that are asked for are there; the last attempt is kept whatever it holds, and its
    truth says what is in it.
    """
    style = request.style or draw_style(rng, wild=False, patient=plan.patient)
    scanner = request.scanner or draw_scanner(rng, wild=False)
    if anatomy.background is not None:
        return _on_real_ct(rng, anatomy, anatomy.background.geometry, plan, style=style, scanner=scanner)
    pixel = request.pixel_mm or float(rng.uniform(0.7, 1.0))
    slices = slices_of(request.thickness_mm or scanner.slice_mm, request.increment_mm, pixel_mm=pixel)
    grid = centred_grid(request.size_mm, (pixel, pixel, slices.fine_mm))
    warp = replace(still(anatomy), matrix=draw_warp(rng, anatomy, strength=0.5).matrix)
    scene = place(anatomy, grid, warp, rng)
    operation = operate_until(rng, scene, plan)
    # Averaging fine slices is what makes thick ones; the fine ones must not be blurred for thickness too.
    case = scan(rng, scene, operation, style=style, scanner=replace(scanner, slice_mm=slices.fine_mm, increment_mm=0.0))
    if slices.as_made:
        return case
    return reslice(case, slices, depths_of(scene, operation.cement(scene), tilt_deg=scanner.tilt_deg))


def operate_until(rng: np.random.Generator, scene: Scene, plan: Plan) -> Operation:
    """The first of up to ATTEMPTS operations with every leak asked for, none too small; else the one with most."""
    best: tuple[int, Operation] | None = None
    for _ in range(ATTEMPTS):
        operation = operate(rng, scene, plan)
        there = leaks_there(plan, operation, scene)
        if best is None or there > best[0]:
            best = (there, operation)
        if there == len(plan.leaks):
            break
    return best[1] if best is not None else operate(rng, scene, plan)


def leaks_there(plan: Plan, operation: Operation, scene: Scene) -> int:
    """How many of the leaks asked for the operation has, at least SMALLEST_LEAK_ML or LEAST_SHARE of what was asked."""
    found = list(zip((leak.mechanism for leak in operation.leaks), operation.leaked_ml(scene), strict=True))
    there = 0
    for asked in plan.leaks:
        least = SMALLEST_LEAK_ML if asked.volume_ml is None else LEAST_SHARE * asked.volume_ml
        hit = next((item for item in found if item[0] == asked.mechanism and item[1] >= least), None)
        if hit is not None:
            found.remove(hit)
            there += 1
    return there


def _on_real_ct(rng: np.random.Generator, anatomy: Anatomy, geometry: Geometry, plan: Plan, *, style: TissueStyle,
                scanner: Scanner) -> Case:
    """Cement put into the real CT, on the CT's own grid, in its own frame, and in all of its field of view."""
    unmoved, scanner = still(anatomy), replace(scanner, tilt_deg=0.0, fov_mm=None)
    scene = place(anatomy, _shifted(geometry, -unmoved.focus_mm), unmoved, rng)
    case = scan(rng, scene, operate_until(rng, scene, plan), style=style, scanner=scanner)
    anatomy_map, cement, leaks, metal = (LabelMap(labels=part.labels, geometry=geometry)
                                         for part in (case.anatomy, case.cement, case.leaks, case.metal))
    return replace(case, ct=Volume(hu=case.ct.hu, geometry=geometry), anatomy=anatomy_map, cement=cement, leaks=leaks,
                   metal=metal)


def _shifted(geometry: Geometry, by_mm: Points) -> Geometry:
    affine = geometry.affine.copy()
    affine[:3, 3] += by_mm
    return Geometry(affine=affine, shape=geometry.shape)


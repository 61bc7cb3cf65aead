"""Named scans with known truth: for the demo, for `simulate`, and for measuring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import Case, centred_grid, draw_injection, scan
from sacroleak.training.simulation.leak import OF_SITE
from sacroleak.training.simulation.operation import operate
from sacroleak.training.simulation.plan import LeakPlan, Plan
from sacroleak.training.simulation.procedural import procedural_pelvis
from sacroleak.training.simulation.scanner import QUIET, Scanner
from sacroleak.training.simulation.scene import draw_warp, place, still
from sacroleak.training.simulation.tissue import TissueStyle, draw_style

FIELD_OF_VIEW_MM = (230.0, 180.0, 190.0)
"""Both sacroiliac joints, the skin behind, L5 above and the coccyx below."""
SMALLEST_LEAK_ML = 0.08
"""A leak asked for by name is drawn again until it is at least this large outside the bone."""
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


def simulated_cases(seed: int, count: int, anatomies: Sequence[Anatomy] = ()) -> Iterator[NamedCase]:
    """Scans that go through no leak and every site in turn, on given anatomies or on procedural ones.

    Case n depends on `seed` and n alone. One in four has metal, one in four cement elsewhere, half thick slices.
    """
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        anatomy = anatomies[number % len(anatomies)] if anatomies else procedural_pelvis(rng)
        plan = _plan(rng, number)
        thickness = float(rng.choice([1.0, 1.5, 2.0, 3.0]))
        scanner = replace(QUIET, slice_mm=thickness, noise_hu=float(rng.uniform(8, 35)),
                          blur_mm=float(rng.uniform(0.6, 1.4)))
        case = planned_case(rng, anatomy, plan, scanner=scanner, slice_mm=thickness)
        yield NamedCase(name=f"sim-{seed}-{number:04d}", case=case)


def _plan(rng: np.random.Generator, number: int) -> Plan:
    """Every fourth case has no leak; the others go through the five sites, one case in five with two of them."""
    volumes = tuple(float(np.clip(rng.normal(5.2, 1.55), 2, 8)) for _ in range(1 if rng.random() < 29 / 35 else 2))
    metal = ("iliosacral_screw", "femoral_nail", "needle", "pedicle_screws")
    extra = (str(rng.choice(metal)),) if rng.random() < 0.25 else ()
    other = (str(rng.choice(["l5", "hip_left", "hip_right"])),) if rng.random() < 0.25 else ()
    if number % 4 == 0:
        plan = plan_of(rng, volumes if number % 8 else (), ())
    else:
        sites = list(OF_SITE)
        chosen = [sites[(number - number // 4) % len(sites)]]
        if number % 5 == 0:
            chosen.append(sites[int(rng.integers(len(sites)))])
        names = tuple(str(rng.choice(OF_SITE[site])) for site in chosen)
        plan = plan_of(rng, volumes, names)
    return replace(plan, hardware=extra, other_cement=other)


def plan_of(rng: np.random.Generator, volumes_ml: Sequence[float], leaks: Sequence[str]) -> Plan:
    """One injection of each volume, sides and approaches drawn, and one leak of each mechanism."""
    return Plan(injections=tuple(draw_injection(rng, ml) for ml in volumes_ml),
                leaks=tuple(LeakPlan(mechanism=name) for name in leaks))


def planned_case(rng: np.random.Generator, anatomy: Anatomy, plan: Plan, *, scanner: Scanner,
                 slice_mm: float = 1.0, pixel_mm: float = 1.0) -> Case:
    """Carry out a plan until every leak it asks for is there and none is too small to name.

    The last attempt is kept whatever it holds: its truth says what is in it.
    """
    grid = centred_grid(FIELD_OF_VIEW_MM, (pixel_mm, pixel_mm, slice_mm))
    warp = replace(still(anatomy), matrix=draw_warp(rng, anatomy, strength=0.5).matrix)
    scene = place(anatomy, grid, warp, rng)
    for _ in range(ATTEMPTS):
        operation = operate(rng, scene, plan)
        volumes = operation.leaked_ml(scene)
        if len(volumes) == len(plan.leaks) and all(ml >= SMALLEST_LEAK_ML for ml in volumes):
            break
    return scan(rng, scene, operation, style=_diagnostic(rng), scanner=scanner)


def _diagnostic(rng: np.random.Generator) -> TissueStyle:
    """A style within what patients show."""
    style = draw_style(rng, wild=False)
    return replace(style, trabecular_hu=float(rng.uniform(30, 220)), cortex_hu=float(rng.uniform(600, 1300)),
                   cortex_mm=float(rng.uniform(0.8, 2.0)))



"""Who the virtual patients are: cohorts as distributions, and one patient's plan drawn from one of them."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from scipy.optimize import root
from scipy.special import ndtr, ndtri

from sacroleak.core.config import load_config
from sacroleak.core.errors import ConfigError
from sacroleak.core.resources import config_path
from sacroleak.core.structures import Side, Site
from sacroleak.training.simulation.plan import Approach, Injection, LeakPlan, LesionKind, Patient, Plan

Key = TypeVar("Key", bound=str | int)
HEALTHY_AGE = 30.0
"""Bone density is counted from here: 1 is a healthy 30-year-old."""
MENOPAUSE_AGE = 50.0


def _fraction(value: object) -> object:
    """`12/35` as a number: a share is written the way the paper counts it."""
    try:
        return float(Fraction(value)) if isinstance(value, str) else value
    except (ValueError, ZeroDivisionError):
        return value


def _positive_sum(value: dict[Any, float]) -> dict[Any, float]:
    if not value or sum(value.values()) <= 0:
        raise ValueError("weights must have a positive sum")
    return value


Share = Annotated[float, BeforeValidator(_fraction), Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Truncated(_Part):
    """A normal distribution cut at `low` and `high`, such that mean and standard deviation hold after the cut."""

    mean: float
    sd: float = Field(gt=0)
    low: float
    high: float

    @model_validator(mode="after")
    def _possible(self) -> Truncated:
        parent_of(self.mean, self.sd, self.low, self.high)
        return self

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        mean, sd = parent_of(self.mean, self.sd, self.low, self.high)
        below, above = ndtr((self.low - mean) / sd), ndtr((self.high - mean) / sd)
        return float(np.clip(mean + sd * ndtri(rng.uniform(below, above)), self.low, self.high))


class LogUniform(_Part):
    """Even on a logarithmic scale from `low` to `high`."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))


class Density(_Part):
    """Trabecular density against age: lost each year after 30, by women more after 50; scatter and limits."""

    loss_per_year: float
    women_after_50: float
    sd: float
    low: float
    high: float

    def draw(self, rng: np.random.Generator, *, age: float, male: bool) -> float:
        """One patient's density; 1 is a healthy 30-year-old's."""
        mean = 1 - self.loss_per_year * max(age - HEALTHY_AGE, 0)
        if not male:
            mean -= self.women_after_50 * max(age - MENOPAUSE_AGE, 0)
        return float(np.clip(mean + rng.normal(0, self.sd), self.low, self.high))


class Primary(_Part):
    """One primary tumour: how frequent, the share of men among its patients, and what its metastases do to bone."""

    weight: Weight
    men: Share
    lytic: Weight
    sclerotic: Weight
    mixed: Weight

    def lesion(self, rng: np.random.Generator) -> LesionKind:
        """One metastasis."""
        return LesionKind(pick(rng, {kind.value: float(getattr(self, kind.value)) for kind in LesionKind}))


class Cohort(_Part):
    """One distribution of plans; docs/simulation.md explains each key."""

    for_rates: bool
    treated: Share
    age: Truncated
    primaries: Annotated[dict[str, Primary], Field(min_length=1)]
    density: Density
    subcutaneous_mm: Truncated
    lesion: Share
    lesion_radius_mm: Truncated
    eroded: dict[LesionKind, Share]
    bilateral: Share
    approaches: Annotated[dict[Approach, Weight], AfterValidator(_positive_sum)]
    needles: Annotated[dict[Annotated[int, Field(ge=1, le=4)], Weight], AfterValidator(_positive_sum)]
    volume_ml: Truncated | LogUniform
    leak: Share
    leaks: Annotated[dict[Annotated[int, Field(ge=1, le=5)], Weight], AfterValidator(_positive_sum)]
    sites: Annotated[dict[Site, Weight], AfterValidator(_positive_sum)]
    tiny_leak: Share
    tiny_leak_ml: LogUniform
    near_misses: dict[str, Share]
    hardware: dict[str, Share]
    calcium: dict[str, Share]
    clutter: dict[str, Share]
    other_cement: dict[Literal["l5", "l4", "hip_left", "hip_right"], Share]
    fracture: Share

    @model_validator(mode="after")
    def _enough_sites(self) -> Cohort:
        possible = sum(weight > 0 for weight in self.sites.values())
        if max(self.leaks) > possible:
            raise ValueError(f"leaks: up to {max(self.leaks)} at different sites, but only {possible} have a weight")
        return self


class SimulateConfig(_Part):
    """`configs/simulate.yaml`. `mechanisms`: for each site the ways out that make it, with their weights."""

    cohorts: Annotated[dict[str, Cohort], Field(min_length=1)]
    mechanisms: dict[Site, Annotated[dict[str, Weight], AfterValidator(_positive_sum)]]

    @field_validator("mechanisms")
    @classmethod
    def _each_site(cls, value: dict[Site, dict[str, float]]) -> dict[Site, dict[str, float]]:
        missing = [site.value for site in Site if site not in value]
        if missing:
            raise ValueError(f"no way out for {', '.join(missing)}")
        return value

    def cohort(self, name: str) -> Cohort:
        """The cohort of that name. Raises ConfigError for an unknown one."""
        if name not in self.cohorts:
            raise ConfigError(f"cohort {name}: unknown, wanted one of {', '.join(self.cohorts)}")
        return self.cohorts[name]


@cache
def shipped_cohorts() -> SimulateConfig:
    """What comes with this installation."""
    return load_config(config_path("simulate.yaml"), SimulateConfig)


def draw_training_plan(rng: np.random.Generator) -> Plan:
    """One plan of the shipped cohort `training`."""
    config = shipped_cohorts()
    return draw_plan(rng, config.cohort("training"), config.mechanisms)


def draw_plan(rng: np.random.Generator, cohort: Cohort, mechanisms: Mapping[Site, Mapping[str, float]]) -> Plan:
    """One patient: who it is, what is injected, what leaks, and what else is in the scan."""
    name = pick(rng, {key: primary.weight for key, primary in cohort.primaries.items()})
    primary = cohort.primaries[name]
    patient = _patient(rng, cohort, name)
    injections = _injections(rng, cohort, primary) if rng.random() < cohort.treated else ()
    return Plan(
        injections=injections, leaks=draw_leaks(rng, cohort, mechanisms) if injections else (),
        near_misses=_some(rng, cohort.near_misses) if injections else (),
        hardware=_some(rng, cohort.hardware), calcium=_some(rng, cohort.calcium), clutter=_some(rng, cohort.clutter),
        other_cement=_some(rng, cohort.other_cement), fracture=bool(rng.random() < cohort.fracture), patient=patient)


def draw_leaks(rng: np.random.Generator, cohort: Cohort,
               mechanisms: Mapping[Site, Mapping[str, float]]) -> tuple[LeakPlan, ...]:
    """The leaks of one treated patient: none, or some at different sites."""
    if rng.random() >= cohort.leak:
        return ()
    left = {site: weight for site, weight in cohort.sites.items() if weight > 0}
    found = []
    for _ in range(pick(rng, cohort.leaks)):
        site = pick(rng, left)
        del left[site]
        volume = cohort.tiny_leak_ml.draw(rng) if rng.random() < cohort.tiny_leak else None
        found.append(LeakPlan(mechanism=pick(rng, mechanisms[site]), volume_ml=volume))
    return tuple(found)


def pick(rng: np.random.Generator, weights: Mapping[Key, float]) -> Key:
    """One key, by weight."""
    keys, shares = list(weights), np.array(list(weights.values()), dtype=np.float64)
    return keys[int(np.searchsorted(np.cumsum(shares) / shares.sum(), rng.random(), side="right"))]


@cache
def parent_of(mean: float, sd: float, low: float, high: float) -> tuple[float, float]:
    """(mean, sd) of the normal distribution that has the given mean and sd once it is cut at `low` and `high`.

    Raises ValueError if there is none: between two ends, no cut normal is as wide as the even distribution.
    """
    if not low < mean < high or sd >= (high - low) / np.sqrt(12):
        raise ValueError(f"no normal distribution cut at {low:g} and {high:g} has mean {mean:g} and sd {sd:g}")
    scale = high - low
    start = np.array([(mean - low) / scale, np.log(sd / scale)])

    def off(parameters: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        got_mean, got_sd = _cut_moments(float(parameters[0]), float(np.exp(parameters[1])))
        return np.array([got_mean - (mean - low) / scale, got_sd - sd / scale])

    found = root(off, start, tol=1e-12)
    if not found.success or np.abs(off(found.x)).max() > 1e-6:
        raise ValueError(f"no normal distribution cut at {low:g} and {high:g} has mean {mean:g} and sd {sd:g}")
    return float(low + scale * found.x[0]), float(scale * np.exp(found.x[1]))


def _cut_moments(mean: float, sd: float) -> tuple[float, float]:
    """Mean and sd of a normal distribution cut at 0 and 1."""
    a, b = -mean / sd, (1 - mean) / sd
    share = ndtr(b) - ndtr(a)
    at_a, at_b = (np.exp(-0.5 * t * t) / np.sqrt(2 * np.pi) for t in (a, b))
    shift = (at_a - at_b) / share
    variance = 1 + (a * at_a - b * at_b) / share - shift**2
    return float(mean + sd * shift), float(sd * np.sqrt(max(variance, 1e-12)))


def _patient(rng: np.random.Generator, cohort: Cohort, primary: str) -> Patient:
    age = cohort.age.draw(rng)
    male = bool(rng.random() < cohort.primaries[primary].men)
    return Patient(age=age, male=male, primary=primary, density=cohort.density.draw(rng, age=age, male=male),
                   subcutaneous_mm=cohort.subcutaneous_mm.draw(rng))


def _injections(rng: np.random.Generator, cohort: Cohort, primary: Primary) -> tuple[Injection, ...]:
    """One lesion, or one on each side; one approach for the patient, as the paper counts them."""
    sides = [Side.LEFT, Side.RIGHT]
    if rng.random() >= cohort.bilateral:
        sides = [sides[int(rng.integers(2))]]
    approach = pick(rng, cohort.approaches)
    return tuple(_injection(rng, cohort, primary, side=side, approach=approach) for side in sides)


def _injection(rng: np.random.Generator, cohort: Cohort, primary: Primary, *, side: Side,
               approach: Approach) -> Injection:
    kind = primary.lesion(rng) if rng.random() < cohort.lesion else None
    eroded = kind is not None and bool(rng.random() < cohort.eroded.get(kind, 0.0))
    return Injection(side=side, approach=approach, needles=pick(rng, cohort.needles),
                     volume_ml=cohort.volume_ml.draw(rng), lesion=kind, eroded=eroded,
                     lesion_radius_mm=cohort.lesion_radius_mm.draw(rng))


def _some(rng: np.random.Generator, shares: Mapping[Any, float]) -> tuple[str, ...]:
    """Each name by its own chance, independently."""
    return tuple(str(name) for name, share in shares.items() if rng.random() < share)

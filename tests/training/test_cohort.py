"""Cohorts as distributions: many draws agree with the paper within what chance allows; the training cohort is rich."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sacroleak.core.config import load_config, parse_config
from sacroleak.core.errors import ConfigError
from sacroleak.core.resources import config_path
from sacroleak.core.structures import Side, Site
from sacroleak.training.simulation.cohort import (
    Cohort,
    LogUniform,
    SimulateConfig,
    Truncated,
    draw_plan,
    draw_training_plan,
    parent_of,
    pick,
    shipped_cohorts,
)
from sacroleak.training.simulation.plan import Approach, Plan

PATIENTS = 12_000
CHANCE = 4.5
"""Standard errors a mean or a share may be off: passed by chance in all but 7 of a million draws."""


def drawn(name: str, count: int, seed: int = 5) -> list[Plan]:
    config = shipped_cohorts()
    rng = np.random.default_rng(seed)
    return [draw_plan(rng, config.cohort(name), config.mechanisms) for _ in range(count)]


@pytest.fixture(scope="module")
def reference() -> list[Plan]:
    return drawn("reference", PATIENTS)


@pytest.fixture(scope="module")
def training() -> list[Plan]:
    return drawn("training", 6000)


def site_of(mechanism: str) -> Site:
    return next(site for site, names in shipped_cohorts().mechanisms.items() if mechanism in names)


def require_moments(values: Sequence[float], mean: float, sd: float) -> None:
    """Mean and sd of a sample agree with those of the distribution, by their standard errors (sd: from the sample's
    fourth moment).
    """
    sample = np.array(values)
    assert abs(sample.mean() - mean) < CHANCE * sd / np.sqrt(sample.size), (sample.mean(), mean)
    fourth = float(((sample - sample.mean()) ** 4).mean())
    error = np.sqrt((fourth - sd**4) / sample.size) / (2 * sd)
    assert abs(sample.std() - sd) < CHANCE * error + 0.005 * sd, (sample.std(), sd)


def require_shares(names: Sequence[object], counts: dict[object, float]) -> None:
    """Shares of a sample agree with the paper's counts by the binomial standard error; nothing else occurs."""
    found, total = Counter(names), sum(counts.values())
    assert set(found) <= set(counts)
    for name, count in counts.items():
        share = count / total
        error = np.sqrt(share * (1 - share) / len(names))
        assert abs(found[name] / len(names) - share) <= CHANCE * error, (name, found[name] / len(names), share)


def test_volumes_needles_and_age_have_the_papers_means_and_deviations(reference: list[Plan]) -> None:
    lesions = [lesion for plan in reference for lesion in plan.injections]
    require_moments([lesion.volume_ml for lesion in lesions], 5.20, 1.55)
    require_moments([lesion.needles for lesion in lesions], 1.49, 0.84)
    require_moments([plan.patient.age for plan in reference if plan.patient], 60.74, 12.74)
    assert all(2 <= lesion.volume_ml <= 8 for lesion in lesions)
    assert {lesion.needles for lesion in lesions} == {1, 2, 3, 4}
    assert all(30 <= plan.patient.age <= 90 for plan in reference if plan.patient)


def test_patients_and_approaches_come_in_the_papers_proportions(reference: list[Plan]) -> None:
    patients = [plan.patient for plan in reference if plan.patient]
    assert len(patients) == len(reference)
    require_shares([patient.male for patient in patients], {True: 24, False: 11})
    require_shares([patient.primary for patient in patients], {
        "lung": 14, "thyroid": 8, "liver": 6, "prostate": 3, "biliary": 2, "breast": 1, "colon": 1})
    require_shares([len(plan.injections) for plan in reference], {1: 29, 2: 6})
    ways = [plan.injections[0].approach for plan in reference]
    posterior = (Approach.POSTERIOR_SHORT_AXIS, Approach.POSTERIOR_LONG_AXIS)
    require_shares(["posterior" if way in posterior else way.value for way in ways],
                   {"posterior": 18, "transiliac": 7, "anterior_oblique": 10})
    assert set(ways) == set(Approach), "posterior needles go along the short and along the long axis"


def test_leaks_come_in_the_papers_proportions_whatever_the_approach(reference: list[Plan]) -> None:
    require_shares([bool(plan.leaks) for plan in reference], {True: 12, False: 23})
    require_shares([site_of(leak.mechanism) for plan in reference for leak in plan.leaks], {
        Site.SACRAL_VENOUS_PLEXUS: 5, Site.PUNCTURE_PATH: 2, Site.ANTERIOR_EPIDURAL_SPACE: 2,
        Site.ANTERIOR_SACRAL_SPACE: 3})
    for way in (Approach.TRANSILIAC, Approach.ANTERIOR_OBLIQUE):
        require_shares([bool(plan.leaks) for plan in reference if plan.injections[0].approach is way],
                       {True: 12, False: 23})


def test_lesions_of_one_patient_lie_on_both_sides_and_share_the_approach(reference: list[Plan]) -> None:
    pairs = [plan.injections for plan in reference if len(plan.injections) == 2]
    assert all({a.side, b.side} == {Side.LEFT, Side.RIGHT} for a, b in pairs)
    assert all(a.approach is b.approach for a, b in pairs)
    require_shares([plan.injections[0].side for plan in reference if len(plan.injections) == 1],
                   {Side.LEFT: 1, Side.RIGHT: 1})


def test_bone_is_thinner_in_the_old_and_more_so_in_women(reference: list[Plan]) -> None:
    patients = [plan.patient for plan in reference if plan.patient]

    def density(*, male: bool, low: float, high: float) -> float:
        return float(np.mean([p.density for p in patients if p.male is male and low <= p.age < high]))

    assert density(male=True, low=30, high=50) > density(male=True, low=70, high=90) + 0.2
    assert density(male=True, low=70, high=90) > density(male=False, low=70, high=90) + 0.03
    assert all(p.male for p in patients if p.primary == "prostate")


def test_a_cohort_for_training_is_balanced_and_rich(training: list[Plan]) -> None:
    sites = Counter(site_of(leak.mechanism) for plan in training for leak in plan.leaks)
    assert set(sites) == set(Site)
    assert max(sites.values()) < 1.12 * min(sites.values())
    treated = [plan for plan in training if plan.injections]
    assert 0.15 < 1 - len(treated) / len(training) < 0.21
    assert np.mean([len(plan.leaks) >= 2 for plan in treated]) > 0.3
    tiny = [leak.volume_ml for plan in training for leak in plan.leaks if leak.volume_ml is not None]
    assert 0.25 < len(tiny) / sum(sites.values()) < 0.35
    assert all(0.02 <= volume <= 0.1 for volume in tiny)
    assert 0.2 < np.mean([bool(plan.hardware) for plan in training]) < 0.4
    assert all(not plan.leaks and not plan.near_misses for plan in training if not plan.injections)


def test_several_leaks_of_one_patient_have_different_sites(training: list[Plan]) -> None:
    for plan in training:
        sites = [site_of(leak.mechanism) for leak in plan.leaks]
        assert len(set(sites)) == len(sites)


def test_only_the_reference_cohort_may_report_rates() -> None:
    assert {name: cohort.for_rates for name, cohort in shipped_cohorts().cohorts.items()} == {
        "reference": True, "training": False}


def test_equal_seeds_draw_equal_plans() -> None:
    assert drawn("reference", 20, seed=1) == drawn("reference", 20, seed=1) != drawn("reference", 20, seed=2)
    assert draw_training_plan(np.random.default_rng(4)) == draw_training_plan(np.random.default_rng(4))


@settings(max_examples=40)
@given(st.floats(-20, 20), st.floats(1, 50), st.floats(0.15, 0.85), st.floats(0.05, 0.24))
def test_a_cut_distribution_keeps_mean_and_deviation(low: float, width: float, middle: float, spread: float) -> None:
    """Within a quarter of the width every mean and deviation can be had, as long as the middle is not too far out."""
    spread = min(spread, 0.8 * min(middle, 1 - middle))
    part = Truncated(mean=low + middle * width, sd=spread * width, low=low, high=low + width)
    mean, sd = parent_of(part.mean, part.sd, part.low, part.high)
    grid = np.linspace(part.low, part.high, 20_001)
    weight = np.exp(-0.5 * ((grid - mean) / sd) ** 2)
    got = float(np.average(grid, weights=weight))
    assert got == pytest.approx(part.mean, abs=2e-3 * width)
    assert np.sqrt(np.average((grid - got) ** 2, weights=weight)) == pytest.approx(part.sd, rel=5e-3)
    rng = np.random.default_rng(0)
    assert all(part.low <= part.draw(rng) <= part.high for _ in range(50))


def test_a_distribution_wider_than_its_ends_is_refused() -> None:
    with pytest.raises(ValidationError, match="no normal distribution cut at 2 and 8"):
        Truncated(mean=5, sd=2.0, low=2, high=8)


def test_picking_follows_the_weights_and_never_takes_what_has_none() -> None:
    rng = np.random.default_rng(0)
    require_shares([pick(rng, {"a": 3, "b": 0, "c": 1}) for _ in range(4000)], {"a": 3, "c": 1})
    values = np.log([LogUniform(low=0.3, high=8).draw(rng) for _ in range(4000)])
    assert values.mean() == pytest.approx((np.log(0.3) + np.log(8)) / 2, abs=0.08)


@pytest.mark.parametrize(("before", "after", "message"), [
    ("bilateral: 6/35", "bilateral: 6/0", "bilateral"),
    ("leak: 12/35", "leak: 12", "leak"),
    ("leaks: {1: 1}", "leaks: {5: 1}", "only 4 have a weight"),
    ("needles: {1: 688", "needles: {0: 688", "needles"),
    ("fracture: 0.1", "fracturing: 0.1", "fractur"),
    ("puncture_path: {needle_track: 1}", "puncture_path: {needle_track: 0}", "positive sum"),
])
def test_an_impossible_cohort_is_refused_by_name(before: str, after: str, message: str) -> None:
    text = config_path("simulate.yaml").read_text(encoding="utf-8")
    assert before in text
    with pytest.raises(ConfigError, match=message):
        parse_config(text.replace(before, after, 1), SimulateConfig, name="simulate.yaml")


def test_an_unknown_cohort_is_answered_with_the_known_ones() -> None:
    config = load_config(config_path("simulate.yaml"), SimulateConfig)
    assert isinstance(config.cohort("reference"), Cohort)
    with pytest.raises(ConfigError, match="wanted one of reference, training"):
        config.cohort("control")

"""Rules and classifier together, from label maps: what is dropped is named, and what is doubted goes to a person."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sacroleak.core.structures import Site, Structure
from sacroleak.models.attribution import attribute
from sacroleak.models.classifier import (
    INPUTS,
    LABELS,
    NOT_A_LEAK,
    ClassifierFile,
    LeakClassifier,
    Sigmoid,
    Spread,
    Thresholds,
    Trees,
)
from sacroleak.models.limits import shipped_limits
from sacroleak.models.segmentation import Segmentation
from tests.phantoms import Pose, alar_cement, anatomy, ball, cement_at, front_y, mirrored

LIMITS = shipped_limits()
N = len(INPUTS)


def classifier(site: Site, no_leak: float) -> LeakClassifier:
    """Says the same of every part: this site, and how probable "not a leak" is."""
    def always(value: float) -> Trees:
        return Trees(roots=[0], feature=[-1], threshold=[0.0], left=[-1], right=[-1], value=[value])

    said = dict.fromkeys(LABELS, 0.02) | {site.value: 0.95 * (1 - no_leak), NOT_A_LEAK: no_leak}
    plain = {label: Sigmoid(slope=1.0, shift=0.0) for label in LABELS}
    wide = Spread(centre=[0.0] * N, scale=[1.0] * N, precision=np.eye(N).tolist(), limit=1e6)
    return LeakClassifier(ClassifierFile(
        inputs=list(INPUTS), trees={label: always(value) for label, value in said.items()}, rule_weight=0.0,
        calibration=plain, alone=plain, low=[-1e6] * N, high=[1e6] * N, spread=wide, trained={},
        thresholds=Thresholds(dropped=0.9, doubted=0.3, confident=0.5)))


@pytest.fixture(scope="module")
def scan() -> Segmentation:
    """Cement in the ala and a clear leak in front of it."""
    return cement_at(alar_cement(), ball((30, front_y(20, 30) - 5, 20), 6))


def test_the_rules_alone_are_not_calibrated_and_the_classifier_is(scan: Segmentation) -> None:
    alone = attribute(scan, LIMITS)
    both = attribute(scan, LIMITS, classifier(Site.ANTERIOR_SACRAL_SPACE, 0.02))
    assert (alone.calibrated, both.calibrated) == (False, True)
    assert [leak.site for leak in both.leaks] == [leak.site for leak in alone.leaks]
    assert both.leaks[0].findings == alone.leaks[0].findings, "the reader's sentences stay"
    assert both.sites[Site.ANTERIOR_SACRAL_SPACE].probability == pytest.approx(0.931, abs=0.01)
    assert both.leak_probability == pytest.approx(0.98, abs=0.01)
    assert not both.leaks[0].needs_review


def test_a_classifier_that_disagrees_with_the_rules_sends_the_leak_to_a_person(scan: Segmentation) -> None:
    (leak,) = attribute(scan, LIMITS, classifier(Site.PUNCTURE_PATH, 0.02)).leaks
    assert leak.site is Site.PUNCTURE_PATH
    assert leak.needs_review
    assert any("anterior_sacral_space" in reason and "puncture_path" in reason for reason in leak.review_reasons)


def test_what_is_called_no_leak_is_named_and_never_lost(scan: Segmentation) -> None:
    alone, both = attribute(scan, LIMITS), attribute(scan, LIMITS, classifier(Site.OTHER, 0.97))
    assert not both.leak_present
    assert not both.leak_numbers.labels.any()
    (note,) = [note for note in both.notes if "is called no leak" in note]
    assert f"{alone.leaks[0].volume_ml:.2f} mL" in note
    assert "anterior_sacral_space" in note
    assert ", ".join(f"{x:.0f}" for x in alone.leaks[0].centroid_lps_mm) in note
    assert "Against it" not in note, "sure, deep cement in front of a bone as the other side has it"
    assert both.leak_probability == pytest.approx(0.03, abs=0.01)
    assert both.cement.total_ml == pytest.approx(alone.cement.total_ml)
    assert both.cement.leaked_ml == 0.0


def test_what_speaks_against_a_leak_is_told() -> None:
    bones = anatomy()
    lump = ball((33.0, front_y(15.0, 33.0) + 1.5, 15.0), 5.0)
    places = np.argwhere(np.ones(bones.geometry.shape, dtype=bool))
    dent = (lump(Pose().to_own(bones.geometry.to_lps(places))) <= 0).reshape(bones.geometry.shape)
    labels = np.where(dent, np.uint8(Structure.BACKGROUND), bones.labels)
    dented = cement_at(alar_cement(), lump, on=replace(bones, labels=labels), margin_mm=90.0)
    doubted = replace(dented, certainty=np.where(dented.cement.labels, 40, 0).astype(np.uint8))
    (note,) = [note for note in attribute(doubted, LIMITS, classifier(Site.OTHER, 0.97)).notes if "no leak" in note]
    assert "Against it: the same place on the other side lies" in note
    assert "the networks doubt that it is cement" in note


def test_what_may_be_no_leak_stays_one_for_review(scan: Segmentation) -> None:
    (leak,) = attribute(scan, LIMITS, classifier(Site.ANTERIOR_SACRAL_SPACE, 0.4)).leaks
    assert leak.needs_review
    assert any("may be no leak" in reason for reason in leak.review_reasons)


def test_a_mirrored_patient_has_the_same_answer(scan: Segmentation) -> None:
    judge = classifier(Site.ANTERIOR_SACRAL_SPACE, 0.02)
    one, other = attribute(scan, LIMITS, judge), attribute(mirrored(scan), LIMITS, judge)
    assert [(k.site, k.review_reasons) for k in one.leaks] == [(k.site, k.review_reasons) for k in other.leaks]
    assert {one.leaks[0].side.value, other.leaks[0].side.value} == {"left", "right"}


def test_without_cement_there_is_nothing_to_judge(scan: Segmentation) -> None:
    empty = cement_at()
    found = attribute(empty, LIMITS, classifier(Site.OTHER, 0.5))
    assert not found.leak_present
    (note,) = found.notes
    assert "No cement was found" in note
    assert "800 HU" in note

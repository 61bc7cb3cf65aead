"""What a manifest says of the needles is evidence: it moves doubtful answers, never clear ones, and is never needed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from sacroleak.core.geometry import Points
from sacroleak.core.needle import Approach, NeedleNote
from sacroleak.core.structures import Side, Site
from sacroleak.models.attribution import Attribution, attribute
from sacroleak.models.compartments import Compartments
from sacroleak.models.limits import shipped_limits
from sacroleak.models.needles import witness
from sacroleak.models.parts import view_scan
from sacroleak.models.segmentation import Segmentation
from sacroleak.models.tracks import HOLE_TRUST, Heard
from tests.phantoms import ALA_LEFT, Pose, Shape, alar_cement, back_y, ball, canal_y, cement_at, mirrored, track

LIMITS = shipped_limits()
POSE = Pose()
WAY = np.array((0.2, 1.0, 0.2)) / np.linalg.norm((0.2, 1.0, 0.2))
"""Of a posterior needle into the left ala, in the phantom's frame."""


def entry(way: Points = WAY, away_mm: float = 90.0) -> tuple[float, float, float]:
    """Where a needle that points to the middle of the left ala enters, LPS mm."""
    x, y, z = POSE.to_lps([np.array(ALA_LEFT) + way * away_mm])[0].tolist()
    return x, y, z


ENTRY = NeedleNote(entries_lps_mm=(entry(),))


def stub(length: float, diameter: float) -> Shape:
    """A short piece of cement behind the left ala, on the needle's way."""
    out = (back_y(22, 36) - ALA_LEFT[1] - 1.0) / WAY[1]
    return track(np.array(ALA_LEFT) + WAY * out, WAY, length, diameter)


@lru_cache
def scan(name: str) -> Segmentation:
    shapes = {"doubtful": stub(6.0, 4.4), "clear": stub(8.0, 3.8),
              "epidural": ball((0, float(canal_y(15)) - 4, 15), 3)}
    return cement_at(alar_cement(), shapes[name])


@lru_cache
def said(name: str, note: NeedleNote | None) -> Attribution:
    return attribute(scan(name), LIMITS, needles=note)


def puncture(name: str, note: NeedleNote | None) -> float:
    return said(name, note).leaks[0].probabilities[Site.PUNCTURE_PATH]


@lru_cache
def spaces() -> Compartments:
    view = view_scan(scan("clear"), LIMITS)
    assert view is not None
    return view.spaces


def test_an_entry_turns_a_doubtful_piece_into_a_needles_track_for_a_person_to_see() -> None:
    (before,), (after,) = said("doubtful", None).leaks, said("doubtful", ENTRY).leaks
    assert (before.site, after.site) == (Site.OTHER, Site.PUNCTURE_PATH)
    assert after.probabilities[Site.PUNCTURE_PATH] < 0.95, "evidence is no proof"
    (finding,) = after.findings
    assert finding.rule == "straight_track"
    assert "an entry that the manifest names" in finding.sentence
    assert after.needs_review
    assert any(reason == "Without what the manifest says of the needles the rules would call it other."
               for reason in after.review_reasons)


def test_an_approach_moves_odds_both_ways_and_never_to_nothing() -> None:
    agrees, none, not_so = (puncture("clear", note) for note in (
        NeedleNote(approach=Approach.POSTERIOR), None, NeedleNote(approach=Approach.TRANSILIAC)))
    assert 0.1 < not_so < none < agrees < 1.0
    assert agrees / (1 - agrees) == pytest.approx(LIMITS.needles.approach_odds * none / (1 - none), rel=0.02)
    assert not_so / (1 - not_so) == pytest.approx(none / (1 - none) / LIMITS.needles.against_odds, rel=0.02)
    (leak,) = said("clear", NeedleNote(approach=Approach.POSTERIOR)).leaks
    assert leak.findings[0].sentence.endswith("The manifest's approach (posterior) spoke for it.")


@pytest.mark.parametrize("note", [
    NeedleNote(approach=Approach.ANTERIOR_OBLIQUE, entries_lps_mm=(entry(np.array((0.6, -0.8, 0.0))),)), ENTRY])
def test_what_lies_in_the_canal_stays_epidural(note: NeedleNote) -> None:
    (before,), (after,) = said("epidural", None).leaks, said("epidural", note).leaks
    assert after.site is before.site is Site.ANTERIOR_EPIDURAL_SPACE
    assert after.probabilities == pytest.approx(before.probabilities, abs=1e-3)
    assert after.review_reasons == before.review_reasons


def test_a_mirrored_patient_with_a_mirrored_entry_has_the_other_side_and_nothing_else() -> None:
    x, y, z = entry()
    note = NeedleNote(approach=Approach.POSTERIOR, entries_lps_mm=((-x, y, z),))
    (leak,), (other,) = (said("doubtful", NeedleNote(approach=Approach.POSTERIOR, entries_lps_mm=(entry(),))).leaks,
                         attribute(mirrored(scan("doubtful")), LIMITS, needles=note).leaks)
    assert (leak.side, other.side) == (Side.LEFT, Side.RIGHT)
    assert (other.site, other.needs_review) == (leak.site, leak.needs_review)
    assert other.probabilities == pytest.approx(leak.probabilities, abs=0.02)


def test_an_entry_of_another_place_is_named_and_changes_nothing_at_all() -> None:
    before, after = (said("doubtful", note) for note in (None, NeedleNote(entries_lps_mm=(entry(away_mm=400.0),))))
    assert after.leaks == before.leaks
    assert after.sites == before.sites
    assert after.leak_probability == before.leak_probability
    (note,) = after.notes
    assert "is not used" in note
    assert not before.notes


def test_an_entry_across_the_midline_gives_no_way_and_the_note_says_so() -> None:
    found = said("doubtful", NeedleNote(entries_lps_mm=(entry(np.array((-0.9, 0.4, 0.0))),)))
    assert found.leaks == said("doubtful", None).leaks
    assert "No straight way" in found.notes[-1]


@pytest.mark.parametrize(("way", "approach"), [
    ((0.1, 1.0, 0.1), Approach.POSTERIOR), ((0.0, 0.5, -1.0), Approach.POSTERIOR),
    ((1.0, 0.2, 0.0), Approach.TRANSILIAC), ((0.8, -0.5, 0.5), Approach.ANTERIOR_OBLIQUE)])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_each_way_agrees_with_its_own_approach_alone(way: tuple[float, float, float], approach: Approach,
                                                     side: float) -> None:
    place = POSE.to_lps([(side * 40.0, -10.0, 20.0)])[0]
    along = POSE.matrix() @ (np.array(way) * (side, 1.0, 1.0) / np.linalg.norm(way))
    odds = {one: witness(NeedleNote(approach=one), spaces(), LIMITS.needles).hear(place, along).odds
            for one in Approach}
    assert [one for one, factor in odds.items() if factor > 1.0] == [approach]


def test_odds_are_taken_back_and_nothing_heard_changes_no_bit() -> None:
    for score in (0.0, 0.123456789, 0.6, 1.0):
        assert Heard().weigh(score) == score
        assert Heard(odds=6.0).take_back(Heard(odds=6.0).weigh(score)) == pytest.approx(score)
    assert Heard(odds=3.0).weigh(0.5) == pytest.approx(0.75)


def test_no_approach_lets_a_hole_decide() -> None:
    assert Heard(odds=LIMITS.needles.approach_odds).weigh(HOLE_TRUST) < LIMITS.sites.track_found_score

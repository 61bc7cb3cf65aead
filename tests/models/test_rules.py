"""Rules one by one, on measures written down by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sacroleak.core.assessment import LeakShape
from sacroleak.core.errors import ConfigError
from sacroleak.core.structures import Compartment, Site
from sacroleak.models import rules
from sacroleak.models.density import Certainty, Density
from sacroleak.models.features import PartFeatures, Place, Profile, ScanMeasures
from sacroleak.models.limits import limits_from_yaml, shipped_limits
from sacroleak.models.surroundings import BoneAround

LIMITS = shipped_limits()
SHAPE = LeakShape(length_mm=12.0, thickness_mm=8.0, elongation=1.5, straightness=0.9, depth_outside_mm=8.0,
                  canal_depth_mm=0.0, distance_to_cortex_mm=0.0)
PROFILE = Profile(thin_mm=6.0, thick_mm=9.0, taper=0.0, winding_deg_per_cm=10.0, branch_points=0, ends=2)
PLACE = Place(canal_mm=20.0, foramen_mm=9.0, foramen="first left foramen", anterior_mm=1.0, skin_mm=80.0,
              track_mm=999.0, track_deg=90.0, track_score=0.0, contact_mm2=20.0, neighbours=0, mirrored_share=0.0)
AROUND = BoneAround(near_share=0.3, wide_share=0.3, more_share=0.0, other_mm=2.0, seen_mm=6.0)
BLOB = PartFeatures(volume_ml=0.5, centroid_lps_mm=(0.0, 0.0, 0.0), left_mm=20.0, shape=SHAPE, outward=0.5, aim_mm=2.0,
                    flatness=1.2, excess_mm=6.0, apart_mm=0.8, compartments={Compartment.PRESACRAL: 1.0}, rim_share=0.1,
                    profile=PROFILE, place=PLACE, around=AROUND,
                    density=Density(mean_hu=1800.0, highest_hu=2400.0, relative=0.9),
                    certainty=Certainty(mean=0.9, highest=1.0, sure_share=0.95),
                    scan=ScanMeasures(intraosseous_ml=3.0, voxel_ml=0.0007, voxel_mm=1.0, coverage=1.0))


def part(*, where: dict[Compartment, float] | None = None, outward: float = 0.5, aim_mm: float = 2.0,
         **shape: float) -> PartFeatures:
    """The blob with some measures changed."""
    changed = replace(SHAPE, **shape)
    changed = replace(changed, length_mm=changed.elongation * changed.thickness_mm)
    return replace(BLOB, shape=changed, compartments=where or BLOB.compartments, outward=outward, aim_mm=aim_mm)


def tube(**changes: float) -> PartFeatures:
    shape = {"thickness_mm": 2.5, "elongation": 10.0, "straightness": 0.8, **changes}
    return part(where=None, outward=0.05, aim_mm=2.0, **shape)


def needle(where: Compartment = Compartment.DORSAL_SOFT_TISSUE, *, outward: float = 0.9) -> PartFeatures:
    return part(where={where: 1.0}, outward=outward, thickness_mm=2.6, elongation=12.0, straightness=0.99)


def best(features: PartFeatures) -> Site:
    scores = rules.site_scores(features, LIMITS)
    return max(scores, key=lambda site: scores[site])


@pytest.mark.parametrize(("features", "rule", "site"), [
    (BLOB, "blob_in_front", Site.ANTERIOR_SACRAL_SPACE),
    (tube(), "tubular", Site.SACRAL_VENOUS_PLEXUS),
    (needle(), "straight_track", Site.PUNCTURE_PATH),
    (part(where={Compartment.VENTRAL_CANAL: 1.0}, canal_depth_mm=4.0), "in_canal", Site.ANTERIOR_EPIDURAL_SPACE),
    (part(where={Compartment.DORSAL_CANAL: 1.0}, canal_depth_mm=4.0), "in_dorsal_canal", Site.OTHER),
    (part(where={Compartment.FORAMINA_LEFT: 1.0}), "in_foramen", Site.OTHER),
    (part(where={Compartment.SACROILIAC_JOINT: 1.0}), "in_joint", Site.OTHER),
    (part(where={Compartment.L5_S1_DISC: 1.0}), "in_disc", Site.OTHER),
    (part(where={Compartment.DORSAL_SOFT_TISSUE: 1.0}), "in_soft_tissue", Site.OTHER),
    (part(where={Compartment.ILIUM: 1.0}), "in_other_bone", Site.OTHER),
])
def test_each_rule_fires_alone_and_names_its_site(features: PartFeatures, rule: str, site: Site) -> None:
    found = rules.findings(features, LIMITS)
    assert [f.rule for f in found] == [rule]
    assert found[0].sentence.endswith(".")
    assert best(features) is site


def test_canal_goes_before_everything_else() -> None:
    tubular_in_canal = part(where={Compartment.VENTRAL_CANAL: 1.0}, canal_depth_mm=3.0, thickness_mm=2.0,
                            elongation=12.0, straightness=0.99)
    assert best(tubular_in_canal) is Site.ANTERIOR_EPIDURAL_SPACE


def test_a_straight_track_away_from_the_bone_goes_before_a_tube() -> None:
    standing = needle(Compartment.PRESACRAL, outward=0.9)
    lying = needle(Compartment.PRESACRAL, outward=0.05)
    assert best(standing) is Site.PUNCTURE_PATH
    assert best(lying) is Site.SACRAL_VENOUS_PLEXUS


def test_a_straight_piece_in_the_joint_is_a_track_if_it_leads_away_from_the_bone() -> None:
    assert best(needle(Compartment.SACROILIAC_JOINT, outward=0.45)) is Site.PUNCTURE_PATH
    assert best(needle(Compartment.SACROILIAC_JOINT, outward=0.1)) is Site.OTHER


def test_a_track_that_misses_the_cement_is_no_needle_track() -> None:
    assert rules.straight_track(replace(needle(), aim_mm=30.0), LIMITS) is None


def test_a_tube_confined_to_its_foramen_is_not_venous() -> None:
    inside = replace(tube(), compartments={Compartment.FORAMINA_LEFT: 1.0})
    through = replace(tube(), compartments={Compartment.FORAMINA_LEFT: 0.4, Compartment.PRESACRAL: 0.6})
    assert best(inside) is Site.OTHER
    assert best(through) is Site.SACRAL_VENOUS_PLEXUS
    assert "foramen" in rules.findings(through, LIMITS)[0].sentence


shares = st.fixed_dictionaries({c: st.floats(0, 1) for c in Compartment}).filter(lambda d: sum(d.values()) > 0.01)
lengths = st.floats(0.5, 80.0)


@st.composite
def parts(draw: st.DrawFn) -> PartFeatures:
    where = draw(shares)
    total = sum(where.values())
    return part(
        where={c: v / total for c, v in where.items()}, outward=draw(st.floats(0, 1)), aim_mm=draw(st.floats(0, 60)),
        thickness_mm=draw(st.floats(0.5, 15.0)), elongation=draw(st.floats(1.0, 30.0)),
        straightness=draw(st.floats(0.3, 1.0)), canal_depth_mm=draw(st.floats(0, 9)),
    )


@given(parts())
def test_scores_are_shares_of_one(features: PartFeatures) -> None:
    scores = rules.site_scores(features, LIMITS)
    assert set(scores) == set(Site)
    assert all(0.0 <= p <= 1.0 for p in scores.values())
    assert sum(scores.values()) == pytest.approx(1.0)


@given(parts())
def test_a_finding_and_an_evidence_above_one_half_are_the_same(features: PartFeatures) -> None:
    names = {f.rule for f in rules.findings(features, LIMITS)}
    assert ("in_canal" in names) == (rules.canal_evidence(features, LIMITS) > 0.5)
    assert ("straight_track" in names) == (rules.track_evidence(features, LIMITS) > 0.5)
    assert ("tubular" in names) == (rules.tube_evidence(features, LIMITS) > 0.5)


@given(parts(), st.floats(0.0, 20.0))
def test_a_longer_tube_is_never_less_of_a_tube(features: PartFeatures, more: float) -> None:
    longer = replace(features, shape=replace(features.shape, elongation=features.shape.elongation + more))
    assert rules.tube_evidence(longer, LIMITS) >= rules.tube_evidence(features, LIMITS)


@given(parts(), st.floats(0.0, 6.0))
def test_deeper_in_the_canal_is_never_less_epidural(features: PartFeatures, more: float) -> None:
    deeper = replace(features, shape=replace(features.shape, canal_depth_mm=features.shape.canal_depth_mm + more))
    site = Site.ANTERIOR_EPIDURAL_SPACE
    assert rules.site_scores(deeper, LIMITS)[site] >= rules.site_scores(features, LIMITS)[site]


def test_every_rule_and_limit_is_documented(repository: Path) -> None:
    page = (repository / "docs" / "rules.md").read_text(encoding="utf-8")
    missing = [rule.__name__ for rule in rules.RULES if f"`{rule.__name__}`" not in page]
    for section in (LIMITS.compartments, LIMITS.leaks, LIMITS.sites, LIMITS.review):
        missing += [key for key in type(section).model_fields if f"`{key}`" not in page]
    assert missing == []


def test_every_limit_has_its_reason_and_unit_beside_it(repository: Path) -> None:
    lines = (repository / "configs" / "rules.yaml").read_text(encoding="utf-8").splitlines()
    commented = False
    for line in lines:
        if line.lstrip().startswith("#"):
            commented = True
        elif not line.strip() or line.endswith(":"):
            commented = False
        else:
            assert commented or "_mm" in line, line


def test_unknown_missing_and_wrong_keys_are_named(repository: Path) -> None:
    text = (repository / "configs" / "rules.yaml").read_text(encoding="utf-8")
    assert limits_from_yaml(text) == LIMITS
    with pytest.raises(ConfigError, match=r"leaks\.dept_mm"):
        limits_from_yaml(text.replace("  depth_mm: 1.5", "  dept_mm: 1.5"))
    with pytest.raises(ConfigError, match="midline_mm"):
        limits_from_yaml(text.replace("midline_mm: 4.0", "midline_mm: -4.0"))
    with pytest.raises(ConfigError, match="YAML"):
        limits_from_yaml("a: [")

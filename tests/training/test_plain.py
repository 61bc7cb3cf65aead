"""Scans of another maker: where their leaks lie, the same seed, and how figures count."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from sacroleak.core.errors import InputError
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import Volume
from sacroleak.models.bundle import default_bundle
from sacroleak.training.evaluate_plain import Places, PlainConfig, PlainResult, main, plain_figures, works
from sacroleak.training.intervals import Bootstrap
from sacroleak.training.plain_scans import plain_case
from sacroleak.training.plain_shapes import Bones, Rod, ball
from sacroleak.training.plain_troubles import TROUBLES
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import Case
from sacroleak.training.simulation.procedural import procedural_pelvis

SCANS = 16
CONFIG = PlainConfig(seed=3, rendered=2, in_real_ct=2, in_trouble=0, match_share=0.1, least_ml=0.05, resamples=20)
BOOTSTRAP = Bootstrap(resamples=20, seed=1)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return procedural_pelvis(np.random.default_rng(4))


@pytest.fixture(scope="module")
def cases(anatomy: Anatomy) -> list[Case]:
    return [plain_case(np.random.default_rng((8, n)), anatomy) for n in range(SCANS)]


def places_in(folder: Path) -> Places:
    return Places(anatomies=folder, manifest=folder / "anatomies.csv", kept=folder / "kept", metrics=folder / "metrics")


def under(case: Case, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Structures under a leak, and where it is, LPS mm."""
    own = case.leaks.labels == number
    return case.anatomy.labels[own], case.ct.geometry.to_lps(np.argwhere(own))


def test_a_rod_is_as_far_as_its_nearest_place_and_a_ball_is_one_without_length() -> None:
    rod = Rod(start=np.zeros(3), end=np.array([10.0, 0.0, 0.0]), radius_mm=2.0)
    points = np.array([[5.0, 3.0, 0.0], [13.0, 4.0, 0.0], [4.0, 0.0, 0.0]])
    assert rod.distance(points) == pytest.approx([1.0, 3.0, -2.0])
    assert ball(np.zeros(3), 2.0).distance(points[:1]) == pytest.approx([np.sqrt(34.0) - 2.0])


def test_every_way_out_is_made_and_lies_where_its_site_is(anatomy: Anatomy, cases: list[Case]) -> None:
    front = anatomy.landmarks["canal_centreline"][:, 1].min()
    seen = set()
    for case in cases:
        for leak in case.truth:
            below, points = under(case, leak.number)
            assert len(below) * case.ct.geometry.voxel_ml == pytest.approx(leak.volume_ml)
            assert (below != Structure.SACRUM).all()
            if leak.site is Site.ANTERIOR_EPIDURAL_SPACE:
                assert (below == Structure.SACRAL_CANAL).mean() > 0.9
            if leak.site is Site.ANTERIOR_SACRAL_SPACE:
                assert points[:, 1].mean() < front + 60.0
                assert (below == Structure.SACRAL_CANAL).mean() < 0.1
            if leak.site is Site.PUNCTURE_PATH:
                spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
                assert spread[0] > 2.0 * spread[1]
            seen.add(leak.site)
    assert seen == set(Site)


def test_cement_is_bright_and_its_leaks_are_part_of_it(cases: list[Case]) -> None:
    assert any(not case.truth for case in cases)
    for case in cases:
        inner = case.cement.labels & (case.anatomy.labels == Structure.SACRUM)
        assert np.median(case.ct.hu[inner]) > 1200
        assert case.cement.labels[case.leaks.labels > 0].all()
        assert not (case.cement.labels & case.metal.labels).any()
        assert set(np.unique(case.leaks.labels)) - {0} <= {leak.number for leak in case.truth}


def test_the_same_seed_gives_the_same_scan(anatomy: Anatomy, cases: list[Case]) -> None:
    again = plain_case(np.random.default_rng((8, 5)), anatomy)
    assert np.array_equal(again.ct.hu, cases[5].ct.hu)
    assert again.truth == cases[5].truth


@pytest.fixture(scope="module")
def hard(anatomy: Anatomy) -> dict[str, Case]:
    """The same draws in each trouble."""
    return {name: plain_case(np.random.default_rng((8, 1)), anatomy, trouble) for name, trouble in TROUBLES.items()}


def test_a_scan_in_trouble_is_one_grid_with_its_own_truth(anatomy: Anatomy, hard: dict[str, Case]) -> None:
    for case in hard.values():
        grid = case.ct.geometry
        for labels in (case.anatomy, case.cement, case.leaks, case.metal):
            grid.require_same_grid(labels.geometry, "labels and CT")
        assert case.cement.labels.any()
        assert not (case.cement.labels & case.metal.labels).any()
        assert set(np.unique(case.leaks.labels)) - {0} == {leak.number for leak in case.truth}
        for leak in case.truth:
            assert (case.leaks.labels == leak.number).sum() * grid.voxel_ml == pytest.approx(leak.volume_ml)
    again = plain_case(np.random.default_rng((8, 1)), anatomy, TROUBLES["turned"])
    assert np.array_equal(again.ct.hu, hard["turned"].ct.hu)


def test_each_trouble_is_what_it_is_called(anatomy: Anatomy, cases: list[Case], hard: dict[str, Case]) -> None:
    plain = cases[1]

    def cement_hu(name: str) -> float:
        return float(np.median(hard[name].ct.hu[hard[name].cement.labels]))

    assert cement_hu("weak_cement") < 1200
    assert cement_hu("saturated_cement") == 3071
    for name in ("both_sides", "weak_cement"):
        left = hard[name].ct.geometry.to_lps(np.argwhere(hard[name].cement.labels))[:, 0]
        left -= anatomy.landmarks["canal_centreline"][:, 0].mean()
        assert bool(min((left < -15).sum(), (left > 15).sum()) > 500) is (name == "both_sides")
    for name, hu, in_bone in (("blastic_bone", 500.0, True), ("calcified_arteries", 350.0, False),
                              ("contrast", 150.0, False)):
        painted = np.zeros(plain.ct.geometry.shape, dtype=np.float32)
        TROUBLES[name].painted(np.random.default_rng(2), painted, Bones(anatomy=anatomy), plain.ct.geometry)
        dense = painted > hu
        assert dense.sum() > 100
        assert bool((plain.anatomy.labels[dense] == Structure.SACRUM).mean() > 0.8) is in_bone
    for name in ("pedicle_screws", "hip_prosthesis"):
        assert hard[name].metal.volume_ml(1) > plain.metal.volume_ml(1) + 1.0
    assert 4.0 <= hard["thick_slices"].ct.geometry.spacing_mm[2] <= 6.0
    assert hard["thick_slices"].cement.volume_ml(1) == pytest.approx(plain.cement.volume_ml(1), rel=0.25)
    assert hard["cut_field_of_view"].ct.hu.size < 0.8 * plain.ct.hu.size
    assert hard["turned"].cement.volume_ml(1) == pytest.approx(plain.cement.volume_ml(1), rel=0.05)
    assert (hard["turned"].anatomy.labels != plain.anatomy.labels).mean() > 0.01


def test_a_real_ct_keeps_its_own_values_away_from_cement(anatomy: Anatomy) -> None:
    index = np.indices((100, 80, 90)).sum(axis=0)
    ct = Volume(hu=(index % 7 * 10).astype(np.int16), geometry=replace(anatomy.geometry, shape=index.shape))
    case = plain_case(np.random.default_rng(12), replace(anatomy, background=ct))
    far = case.ct.hu[(case.ct.hu < 300)]
    assert far.size > 0.9 * case.ct.hu.size
    assert 20 < np.median(far) < 40
    assert case.cement.labels.any()


def test_scans_are_of_patients_held_out_of_training(tmp_path: Path, anatomy: Anatomy) -> None:
    manifest = tmp_path / "anatomies.csv"
    manifest.write_text("anatomy,source,split,licence\nours,x,train,x\nheld,x,test,x\nct,x,test,x\n")
    for name in ("ours", "held"):
        replace(anatomy, name=name).save(tmp_path / f"{name}.npz")
    ct = Volume(hu=np.zeros(anatomy.geometry.shape, dtype=np.int16), geometry=anatomy.geometry)
    replace(anatomy, name="ct", background=ct).save(tmp_path / "ct.npz")

    def bones() -> list[str]:
        made = works(CONFIG, default_bundle(), places_in(tmp_path))
        assert len({work.seed for work in made}) == len({work.name for work in made}) == len(made)
        return [work.bones.stem for work in made]

    assert bones() == ["held", "held", "ct", "ct"]
    hard = [work for work in works(CONFIG.model_copy(update={"in_trouble": 2}), default_bundle(), places_in(tmp_path))
            if work.trouble is not None]
    assert [work.trouble for work in hard] == 2 * list(TROUBLES)
    assert {(work.trouble, work.bones.stem) for work in hard} == {(t, b) for t in TROUBLES for b in ("held", "ct")}
    (tmp_path / "ct.npz").unlink()
    assert bones() == ["held", "held"]
    (tmp_path / "held.npz").unlink()
    with pytest.raises(InputError, match="held out"):
        bones()


def result(true: tuple[Site, ...], found: tuple[Site, ...], *, false: int = 0, judged: bool = True) -> PlainResult:
    leaks = tuple((site, site if site in found else None) for site in true)
    return PlainResult(kind="rendered", trouble=None, true_sites=true, found_sites=found, leaks=leaks, false=false,
                       cement_dice=0.5 if judged else None, digest="")


def test_figures_count_leaks_and_scans() -> None:
    front, path = Site.ANTERIOR_SACRAL_SPACE, Site.PUNCTURE_PATH
    results = [result((front,), (front,)), result((path,), (), judged=False), result((), (front,), false=1),
               result((), ()), result((), (), judged=False)]
    figures = plain_figures(results, BOOTSTRAP)
    values = {name: (figure.value, figure.n) for name, figure in figures.items()}
    assert values["plain_rendered_leaks_found"] == (0.5, 2)
    assert values["plain_rendered_leaks_found[site=puncture_path]"] == (0.0, 1)
    assert values["plain_rendered_site_right_of_found"] == (1.0, 1)
    assert values["plain_rendered_false_leaks_per_scan"] == (0.2, 5)
    assert values["plain_rendered_leak_sensitivity"] == (0.5, 2)
    assert values["plain_rendered_leak_specificity"] == (1 / 3, 3)
    assert values["plain_rendered_exact_sites"] == (0.4, 5)
    assert values["plain_rendered_cement_dice"] == (0.5, 3)
    assert not any("real_ct" in name or "trouble" in name for name in figures)


def test_each_trouble_has_figures_of_its_own() -> None:
    front = Site.ANTERIOR_SACRAL_SPACE
    results = [replace(result((front,), found), kind="in_trouble", trouble=name)
               for name, found in (("turned", (front,)), ("turned", ()), ("contrast", (front,)))]
    figures = plain_figures(results, BOOTSTRAP)
    assert (figures["plain_in_trouble_leaks_found"].value, figures["plain_in_trouble_leaks_found"].n) == (2 / 3, 3)
    assert figures["plain_in_trouble_leaks_found[trouble=turned]"].value == 0.5
    assert figures["plain_in_trouble_exact_sites[trouble=contrast]"].n == 1
    assert "plain_in_trouble_leaks_found[trouble=hip_prosthesis]" not in figures


def test_the_stage_writes_its_figures_and_does_not_segment_twice(tmp_path: Path, anatomy: Anatomy) -> None:
    manifest = tmp_path / "anatomies.csv"
    manifest.write_text("anatomy,source,split,licence\nheld,x,test,x\n")
    replace(anatomy, name="held").save(tmp_path / "held.npz")
    config = CONFIG.model_copy(update={"rendered": 1})
    runs, written = [], set()
    for _ in range(2):
        runs.append(main(config, bundle=default_bundle(), places=places_in(tmp_path),
                         now=datetime(2026, 1, 1, tzinfo=UTC)))
        (kept,) = (tmp_path / "kept").rglob("*.npz")
        written.add(kept.stat().st_mtime_ns)
    assert runs[0] == runs[1]
    assert len(written) == 1
    assert (runs[0][0].cement_dice or 0.0) > 0.5
    assert (tmp_path / "metrics" / "plain.json").is_file()

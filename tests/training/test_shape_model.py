"""The shape model: exact where it must be, and its check of draws can fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Points
from sacroleak.training.shape_model import (
    FARTHEST,
    LIMIT_SD,
    Flaws,
    Limits,
    build_model,
    draw_coefficients,
    draw_pelvis,
    flaws_of,
    generalisation_mm,
    in_own_frame,
    limits_of,
)
from sacroleak.training.surfaces import Mesh, Pelvis

BALL = trimesh.creation.icosphere(subdivisions=2, radius=1.0)
POINTS = np.asarray(BALL.vertices)
FACES = np.asarray(BALL.faces, dtype=np.int64)


def patient(n: int, wide: float = 0.0, tall: float = 0.0, *, moved: bool = True) -> Pelvis:
    """Three ellipsoids whose widths and heights vary in two ways, somewhere and turned somehow."""
    rng = np.random.default_rng(n)
    turn = trimesh.transformations.rotation_matrix(rng.normal(0, 0.15) * moved, rng.normal(size=3))[:3, :3]
    shift = rng.uniform(-300, 300, size=3) * moved

    def bone(centre: tuple[float, float, float], size: tuple[float, float, float]) -> Mesh:
        return Mesh(vertices=(POINTS * size + centre) @ turn + shift, faces=FACES)

    return Pelvis(name=f"p{n}", source="", sacrum=bone((0, 40, 40), (50 + wide, 20, 50 + tall)),
                  hip_left=bone((95 + wide, 0, 0), (30, 60, 90 + tall)),
                  hip_right=bone((-95 - wide, 0, 0), (30, 60, 90 + tall)))


def patients() -> list[Pelvis]:
    rng = np.random.default_rng(11)
    return [patient(n, *rng.normal(0, (4, 6))) for n in range(8)]


def stacked(pelvis: Pelvis) -> Points:
    return np.concatenate([pelvis.sacrum.vertices, pelvis.hip_left.vertices, pelvis.hip_right.vertices])


def test_two_ways_of_varying_are_two_modes() -> None:
    model = build_model(patients())
    assert model.explained[:2].sum() > 0.98
    assert model.explained.sum() == pytest.approx(1.0)
    assert (np.diff(model.sd) <= 1e-9).all()
    assert model.modes @ model.modes.T == pytest.approx(np.eye(len(model.modes)), abs=1e-8)


def test_each_patient_is_a_point_of_the_model() -> None:
    model = build_model(patients())
    for pelvis in patients():
        shape = stacked(in_own_frame(pelvis, model))
        row = (shape - model.mean).reshape(-1) @ model.modes.T
        assert model(row / model.sd) == pytest.approx(shape, abs=0.5)
        sides = np.ptp(shape, axis=0)
        assert sides.max() == pytest.approx(np.ptp(stacked(pelvis), axis=0).max(), rel=0.15), "size is kept"


def test_where_patients_lie_does_not_count() -> None:
    rng = np.random.default_rng(11)
    drawn = [rng.normal(0, (4, 6)) for _ in range(8)]
    here = build_model([patient(n, *d, moved=False) for n, d in enumerate(drawn)])
    there = build_model([patient(n, *d) for n, d in enumerate(drawn)])
    assert there.sd[:2] == pytest.approx(here.sd[:2], rel=1e-3)


def test_coefficients_stay_within_their_limits_and_fill_them() -> None:
    model = build_model(patients())
    drawn = np.stack([draw_coefficients(np.random.default_rng(n), model) for n in range(300)])
    assert np.abs(drawn).max() <= LIMIT_SD
    assert np.sqrt((drawn ** 2).mean(axis=1)).max() <= FARTHEST + 1e-9
    assert drawn.std() == pytest.approx(1.0, abs=0.15)
    assert abs(drawn.mean()) < 0.1


def test_a_pelvis_that_crosses_itself_is_noticed() -> None:
    known = patients()
    model = build_model(known)
    limits = limits_of(model, [in_own_frame(p, model) for p in known])
    good = in_own_frame(known[0], model)
    assert limits.broken_by(flaws_of(model, good)) == ()
    folded = good.sacrum.vertices.copy()
    upper = folded[:, 2] > folded[:, 2].mean() + 20
    folded[upper] -= (0, 0, 70)
    assert {"crossing", "turned"} & set(limits.broken_by(flaws_of(model, replace(
        good, sacrum=Mesh(vertices=folded, faces=FACES)))))
    inside = replace(good, hip_left=Mesh(vertices=good.hip_left.vertices - (60, 0, 0), faces=FACES))
    assert "overlap" in limits.broken_by(flaws_of(model, inside))
    wide = replace(good, hip_left=Mesh(vertices=good.hip_left.vertices + (90, 0, 0), faces=FACES))
    assert limits.broken_by(flaws_of(model, wide)) == ("width_mm",)


def test_draws_are_checked_and_the_same_seed_gives_the_same_pelvis() -> None:
    known = patients()
    model = build_model(known)
    limits = limits_of(model, [in_own_frame(p, model) for p in known])
    one, two = (draw_pelvis(np.random.default_rng(3), model, limits, name="s", source="") for _ in range(2))
    assert np.array_equal(one.sacrum.vertices, two.sacrum.vertices)
    assert limits.broken_by(flaws_of(model, one)) == ()
    never = Limits(crossing=-1, turned=1, overlap=1, width_mm=(0, 1e9))
    with pytest.raises(InputError, match="s: 20 drawn pelvises in a row were implausible"):
        draw_pelvis(np.random.default_rng(3), model, never, name="s", source="")


def test_limits_name_what_they_are_broken_by() -> None:
    limits = Limits(crossing=0.1, turned=0.1, overlap=0.1, width_mm=(100, 300))
    assert limits.broken_by(Flaws(crossing=0.2, turned=0.0, overlap=0.2, width_mm=200)) == ("crossing", "overlap")
    assert limits.broken_by(Flaws(crossing=0.1, turned=0.1, overlap=0.1, width_mm=99)) == ("width_mm",)


def test_a_patient_like_the_others_is_predicted_by_them() -> None:
    assert generalisation_mm(patients()).max() < 1.0
    odd = [*patients(), replace(patients()[0], name="odd", sacrum=Mesh(
        vertices=patients()[0].sacrum.vertices + np.random.default_rng(5).normal(0, 5, POINTS.shape), faces=FACES))]
    assert generalisation_mm(odd)[-1] > 2.0


def test_too_few_and_foreign_pelvises_are_refused() -> None:
    with pytest.raises(InputError, match="got 2 pelvises, wanted at least 3"):
        build_model(patients()[:2])
    odd = replace(patients()[0], sacrum=Mesh(vertices=POINTS[:-1], faces=FACES))
    with pytest.raises(InputError, match="different numbers of points"):
        build_model([*patients(), odd])

"""What a leak part truly is, by overlap, and the table that keeps it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sacroleak.core.errors import InputError
from sacroleak.core.structures import Site
from sacroleak.models.classifier import INPUTS, LABELS, NOT_A_LEAK
from sacroleak.training.part_table import joined, label_of, load_table, save_table
from sacroleak.training.simulation.case import LeakTruth
from tests.training.leak_parts import made_up

VENOUS, TRACK = Site.SACRAL_VENOUS_PLEXUS, Site.PUNCTURE_PATH
TRUTH = (LeakTruth(number=1, site=VENOUS, mechanism="foraminal_vein", volume_ml=0.1),
         LeakTruth(number=2, site=TRACK, mechanism="needle_track", volume_ml=0.1),
         LeakTruth(number=3, site=TRACK, mechanism="needle_track", volume_ml=0.01))
SIZES = np.array([0, 400, 400, 4])


def labels(*counts: int) -> set[str]:
    """Of a part with so many voxels of no leak, of leak 1, of leak 2, and of leak 3."""
    values = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)
    found = label_of(values, SIZES, TRUTH, match_share=0.1)
    return {label for label, n in zip(LABELS, found, strict=True) if n}


@pytest.mark.parametrize(("counts", "wanted"), [
    ((100,), {NOT_A_LEAK}),
    ((91, 9), {NOT_A_LEAK}),
    ((90, 10), {VENOUS}),
    ((40, 30, 30), {VENOUS, TRACK}),
    ((88, 5, 7), {TRACK}),
    ((500, 0, 0, 2), {TRACK}),
    ((500, 0, 0, 1), {NOT_A_LEAK}),
])
def test_a_tenth_of_a_part_or_half_of_a_leak_decides(counts: tuple[int, ...], wanted: set[str]) -> None:
    assert labels(*counts) == wanted


def test_a_table_is_read_back(tmp_path: Path) -> None:
    table = made_up(1, 4).with_lists_only([2])
    save_table(tmp_path / "t.npz", table)
    back = load_table(tmp_path / "t.npz")
    assert back.cases == table.cases
    for name in ("matrix", "truth", "case_of", "number"):
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name))
    assert back.patients.tolist() == table.patients.tolist()


def test_a_table_of_other_measures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run extract_features first"):
        load_table(tmp_path / "none.npz")
    save_table(tmp_path / "t.npz", made_up(1, 2))
    with np.load(tmp_path / "t.npz") as data:
        parts = dict(data)
    np.savez(tmp_path / "t.npz", **(parts | {"inputs": np.array(INPUTS[::-1])}))
    with pytest.raises(InputError, match="other measures"):
        load_table(tmp_path / "t.npz")


def test_chosen_scans_keep_their_own_parts() -> None:
    table = made_up(1, 6)
    chosen = table.of_cases([4, 1])
    assert [case.name for case in chosen.cases] == ["case-4", "case-1"]
    for place, old in enumerate((4, 1)):
        np.testing.assert_array_equal(np.sort(chosen.matrix[chosen.case_of == place], axis=0),
                                      np.sort(table.matrix[table.case_of == old], axis=0))


def test_scans_without_parts_stay_in_the_table() -> None:
    one = made_up(1, 1)
    none = joined([])
    table = joined([(one.cases[0], none.matrix, none.truth), (one.cases[0], one.matrix, one.truth)])
    assert len(table.cases) == 2
    assert set(table.case_of.tolist()) == {1}

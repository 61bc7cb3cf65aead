"""Scans for the leak classifier: never of the test, the same each time, and made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from sacroleak.core.errors import ConfigError
from sacroleak.training import leak_cases
from sacroleak.training.leak_cases import LeakCasesConfig, kept_case, load_leak_case, orders

CONFIG = LeakCasesConfig(count=3, seed=1, new_procedural=0.0, far=0.0, near_miss_without_leak=1.0,
                         fov_mm=(170.0, 172.0), pixel_mm=(2.6, 2.8), slices_mm=(3.0,))


def test_a_scan_is_made_once_and_read_back_whole(anatomies: Path, manifest: Path, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    order = orders([CONFIG], anatomies=anatomies, manifest=manifest)[1]
    made = kept_case(order, tmp_path)
    assert made.patient in {path.stem for path in anatomies.glob("*.npz")}
    again = leak_cases.make(order).case
    np.testing.assert_array_equal(made.case.ct.hu, again.ct.hu)
    for name in leak_cases.LABELS:
        np.testing.assert_array_equal(getattr(made.case, name).labels, getattr(again, name).labels)
    assert made.case.truth == again.truth
    assert made.sites == tuple(sorted({truth.site for truth in again.truth}))

    def never(_: object) -> None:
        raise AssertionError("made a second time")

    monkeypatch.setattr(leak_cases, "make", never)
    more = orders([CONFIG.model_copy(update={"count": 9})], anatomies=anatomies, manifest=manifest)[1]
    np.testing.assert_array_equal(kept_case(more, tmp_path).case.ct.hu, made.case.ct.hu)
    other = orders([CONFIG.model_copy(update={"seed": 2})], anatomies=anatomies, manifest=manifest)[1]
    with pytest.raises(AssertionError, match="a second time"):
        kept_case(other, tmp_path)
    assert load_leak_case(tmp_path / f"{order.name}.npz").name == order.name


def test_a_group_of_scans_added_at_the_end_leaves_the_others_as_they_are(anatomies: Path, manifest: Path) -> None:
    one = orders([CONFIG], anatomies=anatomies, manifest=manifest)
    coarse = CONFIG.model_copy(update={"pixel_mm": (5.0, 6.0), "count": 2})
    both = orders([CONFIG, coarse], anatomies=anatomies, manifest=manifest)
    assert [order.origin for order in both[:3]] == [order.origin for order in one]
    assert [order.name for order in both] == [f"leak-case-{number:04d}" for number in range(5)]
    assert [order.config for order in both[3:]] == [coarse, coarse]
    assert leak_cases.make(both[3]).case.ct.geometry.spacing_mm.max() >= 5.0


def test_a_group_is_drawn_from_the_anatomies_of_its_split(tmp_path: Path) -> None:
    table = tmp_path / "anatomies.csv"
    table.write_text("anatomy,source,split,licence\na,x,train,y\nb,x,test,y\nc,x,train,y\nd,x,validation,y\n")
    with pytest.raises(ConfigError, match="none of the 2 anatomies of split train"):
        orders([CONFIG], anatomies=tmp_path, manifest=table)
    for name in ("a", "b", "d"):
        (tmp_path / f"{name}.npz").write_bytes(b"")
    groups = [CONFIG, CONFIG.model_copy(update={"split": "validation"})]
    drawn = orders(groups, anatomies=tmp_path, manifest=table)
    assert [[path.stem for path, _ in order.bones] for order in drawn] == [["a"]] * 3 + [["d"]] * 3
    with pytest.raises(ValidationError):
        LeakCasesConfig.model_validate(CONFIG.model_dump() | {"split": "test"})

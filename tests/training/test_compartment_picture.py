"""The picture of the compartments in the documentation."""

from __future__ import annotations

from pathlib import Path

from sacroleak.core.structures import Compartment
from sacroleak.training.compartment_picture import COLOURS, main


def test_the_picture_shows_every_compartment_and_is_small(tmp_path: Path) -> None:
    assert set(COLOURS) == set(Compartment)
    main(tmp_path / "compartments.png")
    drawn = (tmp_path / "compartments.png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert 20_000 < len(drawn) < 300_000

"""What the networks saw of a scan, kept on disk and read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sacroleak.core.errors import NotAssessableError
from sacroleak.core.volume import Volume
from sacroleak.models.segmentation import Segmentation
from sacroleak.training.seen_cases import kept_segmentation
from tests.phantoms import alar_cement, cement_at


class Once:
    """A segmenter that may be asked once; without an answer it refuses the scan."""

    def __init__(self, answer: Segmentation | None) -> None:
        self.answer, self.asked = answer, False

    def segment(self, ct: Volume) -> Segmentation:
        assert not self.asked
        self.asked = True
        if self.answer is None:
            raise NotAssessableError(("no sacrum",))
        return self.answer


@pytest.mark.parametrize("told", [True, False])
def test_all_that_was_seen_is_there_again(tmp_path: Path, told: bool) -> None:
    seen = cement_at(alar_cement())
    if told:
        rng = np.random.default_rng(3)
        seen = replace(seen, certainty=rng.integers(0, 101, seen.cement.labels.shape).astype(np.uint8))
    segmenter = Once(seen)
    for _ in range(2):
        again = kept_segmentation(seen.ct, tmp_path / "scan.npz", segmenter)
        if told:
            assert again.certainty is not None
            assert seen.certainty is not None
            assert np.array_equal(again.certainty, seen.certainty)
        else:
            assert again.certainty is None
        assert np.array_equal(again.anatomy.labels, seen.anatomy.labels)
        assert np.array_equal(again.cement.labels, seen.cement.labels)
        assert again.start == seen.start


def test_a_refusal_is_kept_too(tmp_path: Path) -> None:
    segmenter, ct = Once(None), cement_at(alar_cement()).ct
    for _ in range(2):
        with pytest.raises(NotAssessableError, match="no sacrum"):
            kept_segmentation(ct, tmp_path / "scan.npz", segmenter)

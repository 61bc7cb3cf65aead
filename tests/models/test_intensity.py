"""HU as the networks see them."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.models.intensity import CHANNELS, WINDOWS_HU, erase, to_channels


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_each_window_maps_to_minus_one_to_one(dtype: type[np.generic]) -> None:
    hu = np.array([[[-1024, -1000, -250, 0, 200, 650, 3000, 3071, 12000]]]).astype(dtype)
    channels = to_channels(hu)
    assert channels.shape == (CHANNELS, *hu.shape)
    assert channels.dtype == np.float32
    for channel, (low, high) in zip(channels, WINDOWS_HU, strict=True):
        wanted = np.clip((hu.astype(float) - low) / (high - low) * 2 - 1, -1, 1)
        assert np.abs(channel - wanted).max() < 1e-3


def test_the_input_is_left_as_it_is() -> None:
    hu = np.array([[[5000.0, -3000.0]]], dtype=np.float32)
    to_channels(hu)
    assert hu.tolist() == [[[5000.0, -3000.0]]]


def test_what_is_erased_looks_like_no_hounsfield_unit() -> None:
    every = np.arange(-3024, 20000, dtype=np.float32).reshape(1, 1, -1)
    channels = to_channels(every)
    where = np.zeros(every.shape, dtype=bool)
    where[0, 0, 7] = True
    kept = channels[:, ~where]
    erase(channels, where)
    mark = channels[:, where][:, 0]
    assert np.array_equal(channels[:, ~where], kept)
    assert not (np.abs(kept - mark[:, None]).max(axis=0) < 0.5).any()

"""Shared by all tests: how Hypothesis behaves, and where the repository lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine must not fail a test, so there is no deadline; the same examples every time make a failure repeatable.
settings.register_profile("sacroleak", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("sacroleak")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return Path(__file__).resolve().parent.parent

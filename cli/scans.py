"""Made-up scans as `demo` and `simulate` take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sacroleak.core.structures import Site
    from sacroleak.core.volume import LabelMap, Volume

TRUTH_COLUMNS = ("case_id", "path", "true_sites", "true_leaked_ml", "true_cement_ml")
"""The first two make the file a manifest that `score` reads; it leaves the others alone."""


class KnownScan(Protocol):
    """A made-up scan and what is true of it. Volumes in mL."""

    @property
    def name(self) -> str:
        """Becomes the case id."""
    @property
    def ct(self) -> Volume:
        """The scan."""
    @property
    def leaked_ml(self) -> Mapping[Site, float]:
        """Leaked volume by site; sites without a leak are left out or 0."""
    @property
    def cement_ml(self) -> float:
        """All cement of the sacrum, inside its bone and leaked."""


class LabelledScan(KnownScan, Protocol):
    """The same with its label maps, all on the grid of `ct`."""

    @property
    def anatomy(self) -> LabelMap:
        """Structure 0-5 as before cement."""
    @property
    def cement(self) -> LabelMap:
        """True where cement is."""
    @property
    def leaks(self) -> LabelMap:
        """0, or the number of the leak."""


def leaks_of(scan: KnownScan) -> dict[Site, float]:
    """The sites that have a leak, with its volume in mL."""
    return {site: volume for site, volume in scan.leaked_ml.items() if volume > 0}


def truth_row(scan: KnownScan, path: str) -> tuple[str | float, ...]:
    """One row under TRUTH_COLUMNS; `path` is relative to the table's folder."""
    leaked = leaks_of(scan)
    return (scan.name, path, " ".join(sorted(leaked)), round(sum(leaked.values()), 4), round(scan.cement_ml, 4))


def table_bytes(rows: list[tuple[str | float, ...]]) -> bytes:
    """Rows under TRUTH_COLUMNS as CSV."""
    import csv
    from io import StringIO

    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([TRUTH_COLUMNS, *rows])
    return text.getvalue().encode()

"""Made-up scans as `demo` and `simulate` take them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sacroleak.core.structures import Site
    from sacroleak.core.volume import Volume

TRUTH_COLUMNS = ("case_id", "path", "true_sites", "true_leaked_ml", "true_cement_ml", "cohort", "synthetic")
"""The first two make the file a manifest that `score` reads; it leaves the others alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthRow:
    """What a table says of one made-up scan; `path` is relative to the table's folder, volumes in mL."""

    case_id: str
    path: str
    sites: Sequence[str]
    leaked_ml: float
    cement_ml: float
    cohort: str


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


def leaks_of(scan: KnownScan) -> dict[Site, float]:
    """The sites that have a leak, with its volume in mL."""
    return {site: volume for site, volume in scan.leaked_ml.items() if volume > 0}


def table_bytes(rows: Sequence[TruthRow]) -> bytes:
    """Rows under TRUTH_COLUMNS as CSV."""
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TRUTH_COLUMNS)
    for row in rows:
        writer.writerow((row.case_id, row.path, " ".join(row.sites), round(row.leaked_ml, 4), round(row.cement_ml, 4),
                         row.cohort, "true"))
    return text.getvalue().encode()

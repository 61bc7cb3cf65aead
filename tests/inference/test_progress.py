"""The line that says how far a run is."""

from __future__ import annotations

import pytest

from sacroleak.inference.progress import Pace
from sacroleak.inference.run_record import Outcome
from sacroleak.inference.tables import Failure

FAIR = Outcome(case_id="a", input="a", what="scored", seconds={})
REFUSED = Outcome(case_id="b", input="b", what="refused", seconds={},
                  failure=Failure(case_id="b", input="b", reason="r", stage="read"))


@pytest.mark.parametrize(("seconds", "total", "line"), [
    (60.0, 40, "4 done, 1 refused, 4.0 a minute, about 9 min left"),
    (600.0, 400, "4 done, 1 refused, 0.4 a minute, about 16 h 30 min left"),
    (2.0, 8, "4 done, 1 refused, 120.0 a minute, about a minute left"),
    (60.0, None, "4 done, 1 refused, 4.0 a minute"),
    (60.0, 4, "4 done, 1 refused, 4.0 a minute"),
])
def test_what_is_left_follows_from_the_share_that_was_looked_at(seconds: float, total: int | None, line: str) -> None:
    moments = iter([0.0, seconds])
    pace = Pace(clock=lambda: next(moments), total=lambda: total)
    pace.start()
    for position, outcome in enumerate((FAIR, FAIR, REFUSED, FAIR), start=1):
        pace.count(outcome, position)
    assert pace.line() == line

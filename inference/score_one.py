"""One scan: from voxels to a report and its pictures, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from sacroleak.core.report import Report, to_report
from sacroleak.core.volume import Volume
from sacroleak.inference.config import Outputs
from sacroleak.inference.preview import draw_preview
from sacroleak.models.assess import AssessedScan, ScanRef, Segmenter, assess
from sacroleak.models.limits import RuleLimits
from sacroleak.models.segmentation import Segmentation

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What judges every scan of a run, and what is written of it. Digests are sha256 in hex.

    With `debug` a fault of the software is raised instead of being noted as that scan's failure.
    """

    segmenter: Segmenter
    limits: RuleLimits
    outputs: Outputs
    version: str
    bundle: str
    bundle_digest: str
    config_digest: str
    debug: bool = False

    def ref(self, case_id: str, input_digest: str) -> ScanRef:
        """What the report will say about where its answer comes from."""
        return ScanRef(case_id=case_id, input_digest=input_digest, version=self.version, bundle=self.bundle,
                       bundle_digest=self.bundle_digest, config_digest=self.config_digest)


@dataclass(slots=True, kw_only=True)
class Stopwatch:
    """Seconds by stage, read from `clock` (seconds, any origin)."""

    clock: Clock
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to `name`, errors included."""
        begin = self.clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock() - begin


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredScan:
    """A report with what its images are made from. `preview` is a PNG, None if none was asked for."""

    report: Report
    scan: AssessedScan
    preview: bytes | None


def score_one(ct: Volume, ref: ScanRef, engine: Engine, *, now: datetime, watch: Stopwatch) -> ScoredScan:
    """Assess `ct` and picture it; stages `segment`, `rules` and `preview` go to `watch`."""
    timed = _TimedSegmenter(segmenter=engine.segmenter, watch=watch)
    begin = watch.clock()
    scan = assess(ct, timed, engine.limits, ref, now=now)
    watch.seconds["rules"] = watch.clock() - begin - watch.seconds.get("segment", 0.0)
    report = to_report(scan.assessment, notes=scan.notes)
    preview = None
    if engine.outputs.preview:
        with watch.stage("preview"):
            preview = draw_preview(ct, scan.segmentation, scan.leak_numbers, report)
    return ScoredScan(report=report, scan=scan, preview=preview)


@dataclass(frozen=True, slots=True, kw_only=True)
class _TimedSegmenter:
    """A segmenter that reports its own time."""

    segmenter: Segmenter
    watch: Stopwatch

    def segment(self, ct: Volume) -> Segmentation:
        with self.watch.stage("segment"):
            return self.segmenter.segment(ct)

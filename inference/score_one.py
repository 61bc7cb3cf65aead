"""One scan: from voxels to a report and its pictures, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol, runtime_checkable

from sacroleak.core.needle import NeedleNote
from sacroleak.core.report import Report, to_report
from sacroleak.core.volume import Volume
from sacroleak.inference.config import Outputs, needles_digest
from sacroleak.inference.preview import draw_preview
from sacroleak.inference.released import ReleasedSegmenter
from sacroleak.models.assess import AssessedScan, ScanRef, Segmenter, assess
from sacroleak.models.classifier import LeakClassifier
from sacroleak.models.limits import RuleLimits
from sacroleak.models.runtime import CPU
from sacroleak.models.segmentation import Segmentation

Clock = Callable[[], float]


@runtime_checkable
class LoadsLate(Protocol):
    """A segmenter that is not loaded when it is made."""

    def load(self) -> object:
        """Load it now. Raises ModelError."""
        ...


@runtime_checkable
class HasDevice(Protocol):
    """A segmenter that may run elsewhere than on the CPU."""

    device: str


SEGMENT = "segment"
"""The stage in which the networks work: one scan at a time in each process on the CPU."""
WAITING = "wait"


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
    classifier: LeakClassifier | None = None

    def warm(self) -> None:
        """Load the networks now, if they are loaded late. Raises ModelError."""
        if isinstance(self.segmenter, LoadsLate):
            self.segmenter.load()

    def with_threads(self, threads: int) -> Engine:
        """The same engine with so many threads for its networks."""
        if not isinstance(self.segmenter, ReleasedSegmenter):
            return self
        return replace(self, segmenter=self.segmenter.with_threads(threads))

    @property
    def device(self) -> str:
        """What the networks run on."""
        return self.segmenter.device if isinstance(self.segmenter, HasDevice) else CPU

    def ref(self, case_id: str, input_digest: str, needles: NeedleNote | None = None) -> ScanRef:
        """What the report will say about where its answer comes from; `needles`: what is known of them."""
        return ScanRef(case_id=case_id, input_digest=input_digest, version=self.version, bundle=self.bundle,
                       bundle_digest=self.bundle_digest, config_digest=self.config_digest, needles=needles,
                       needles_digest=needles_digest(needles, self.limits))


@dataclass(slots=True, kw_only=True)
class Stopwatch:
    """Seconds by stage, read from `clock` (seconds, any origin).

    A stage named in `gates` begins when its gate opens; waiting for it counts for no stage. `entered` is told each
    stage as it begins, and WAITING before a gate. `last` is the stage that began last.
    """

    clock: Clock
    seconds: dict[str, float] = field(default_factory=dict)
    gates: Mapping[str, AbstractContextManager[object]] = field(default_factory=dict)
    entered: Callable[[str], None] = lambda _: None
    last: str = "read"
    _running: str | None = None
    _since: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to `name`, errors included; a stage within another counts for itself alone."""
        outer = self._running
        self._pause()
        gate = self.gates.get(name)
        if gate is not None:
            self.entered(WAITING)
        with nullcontext() if gate is None else gate:
            self._go_on(name)
            try:
                yield
            finally:
                self._pause()
        if outer is not None:  # not after an error: `last` says where it arose
            self._go_on(outer)

    def _go_on(self, name: str) -> None:
        self.entered(name)
        self.last = name
        self._running, self._since = name, self.clock()

    def _pause(self) -> None:
        if self._running is not None:
            self.seconds[self._running] = self.seconds.get(self._running, 0.0) + self.clock() - self._since
            self._running = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredScan:
    """A report with what its images are made from. `preview` is a PNG, None if none was asked for."""

    report: Report
    scan: AssessedScan
    preview: bytes | None


def score_one(ct: Volume, ref: ScanRef, engine: Engine, *, now: datetime, watch: Stopwatch) -> ScoredScan:
    """Assess `ct` and picture it; stages `segment`, `rules` and `preview` go to `watch`."""
    timed = _TimedSegmenter(segmenter=engine.segmenter, watch=watch)
    with watch.stage("rules"):
        scan = assess(ct, timed, engine.limits, ref, now=now, classifier=engine.classifier)
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
        with self.watch.stage(SEGMENT):
            return self.segmenter.segment(ct)

"""The networks of a release, loaded in the process that uses them: it is sent where they lie, not what they are."""

from __future__ import annotations

from functools import partial
from threading import Lock

from sacroleak.core.volume import Volume
from sacroleak.models import networks
from sacroleak.models.assess import Segmenter
from sacroleak.models.bundle import Bundle
from sacroleak.models.effort import Effort
from sacroleak.models.runtime import CPU
from sacroleak.models.segmentation import Segmentation


class ReleasedSegmenter:
    """The segmenter of a verified release. It is loaded when it is first used, and sent to other processes unloaded.

    Several threads may use it: one loads, and the others wait.
    """

    def __init__(self, bundle: Bundle, *, threads: int, effort: Effort = Effort.STANDARD, device: str = CPU) -> None:
        self.bundle, self.threads, self.effort, self.device = bundle, threads, effort, device
        self._loaded: Segmenter | None = None
        self._loading = Lock()

    def load(self) -> Segmenter:
        """Compile the networks, once. Raises ModelError."""
        with self._loading:
            if self._loaded is None:
                self._loaded = networks.load_segmenter(self.bundle, threads=self.threads, effort=self.effort,
                                                       device=self.device)
            return self._loaded

    def segment(self, ct: Volume) -> Segmentation:
        """Bone as before cement, and cement. Raises NotAssessableError if too little of the sacrum is shown."""
        return self.load().segment(ct)

    def with_threads(self, threads: int) -> ReleasedSegmenter:
        """The same, not loaded, with so many threads for its networks."""
        return ReleasedSegmenter(self.bundle, threads=threads, effort=self.effort, device=self.device)

    def __reduce__(self) -> tuple[partial[ReleasedSegmenter], tuple[Bundle]]:
        return partial(ReleasedSegmenter, threads=self.threads, effort=self.effort, device=self.device), (self.bundle,)

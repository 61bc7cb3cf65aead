"""Exported networks on a graphics card, through torch. Calls of several tiles and scans are answered together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import numpy as np

from sacroleak.core.errors import ModelError
from sacroleak.models.architecture import build_network, filters_of, probabilities, set_weights, weights_in
from sacroleak.models.runtime import Field, Precision

MOST_TOGETHER = 8
"""Calls answered at once: eight tiles of the near network keep about 1 GB of activations."""
WAIT_S = 0.002
"""A call waits so long for others to be answered with; the network takes longer."""

Together = Callable[[Field], Field]


def require_card(device: str) -> None:
    """Raises ModelError if there is no such card, or no torch that can use it."""
    try:
        import monai  # noqa: F401 - only whether it is there
        import onnx  # noqa: F401 - likewise
        import torch
    except ImportError as error:
        raise ModelError(f"--device {device} needs torch, MONAI and onnx: install sacroleak[gpu]") from error
    try:
        number = torch.device(device).index or 0
    except RuntimeError as error:
        raise ModelError(f"--device {device}: give cpu, cuda or cuda:N") from error
    if not device.startswith("cuda") or number >= torch.cuda.device_count():
        raise ModelError(f"--device {device}: there is no such graphics card here that torch {torch.__version__} can "
                         f"use; leave --device out to score on the CPU")


class TorchNetwork:
    """One exported network on `device`. Sides of the input must be multiples of 16."""

    def __init__(self, path: Path, *, device: str, precision: Precision) -> None:
        import torch

        weights = weights_in(path)
        try:
            network = build_network(filters_of(weights))
            set_weights(network, weights)
        except (KeyError, ValueError) as error:
            raise ModelError(f"{path.name}: not a network of this version's shape") from error
        self._network, self._device = network.to(device).eval(), torch.device(device)
        self._half = precision == "bf16"

    def __call__(self, channels: Field) -> Field:
        """(n, 2, i, j, k) channels to (n, 8, i, j, k) probabilities. Raises MemoryError where one alone is too much
        for the card.
        """
        import torch

        try:
            with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
                logits = self._network(torch.from_numpy(np.ascontiguousarray(channels)).to(self._device))
                answer: Field = probabilities(logits.float()).cpu().numpy()
        except torch.OutOfMemoryError as error:
            if len(channels) == 1:
                raise MemoryError from error
            half = len(channels) // 2
            return np.concatenate([self(channels[:half]), self(channels[half:])])
        return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    channels: Field
    answer: Future[Field] = field(default_factory=Future)


class Pooled:
    """A network that may be called from several threads: calls that come at a time are answered together.

    `together`: (n, 2, i, j, k) channels to (n, 8, i, j, k) probabilities, called from one thread alone.
    """

    def __init__(self, together: Together, *, most: int = MOST_TOGETHER, wait_s: float = WAIT_S) -> None:
        self._together, self._most, self._wait_s = together, most, wait_s
        self._calls: Queue[_Call] = Queue()
        Thread(target=self._serve, name="graphics", daemon=True).start()

    def __call__(self, channels: Field) -> Field:
        """(2, i, j, k) channels to (8, i, j, k) probabilities; what `together` raises is raised here."""
        return self._ask(channels).result()

    def many(self, inputs: Iterable[Field]) -> Iterator[Field]:
        """The answers in order, never more than two rounds of them asked for ahead."""
        asked: deque[Future[Field]] = deque()
        for channels in inputs:
            asked.append(self._ask(channels))
            if len(asked) >= 2 * self._most:
                yield asked.popleft().result()
        while asked:
            yield asked.popleft().result()

    def _ask(self, channels: Field) -> Future[Field]:
        call = _Call(channels=channels)
        self._calls.put(call)
        return call.answer

    def _serve(self) -> None:
        next_one: _Call | None = None
        while True:
            calls, next_one = self._alike(next_one or self._calls.get())
            _answer(calls, self._together)

    def _alike(self, first: _Call) -> tuple[list[_Call], _Call | None]:
        """`first` and what comes after it, as long as it has the same sides; and the one that has not."""
        calls = [first]
        while len(calls) < self._most:
            try:
                call = self._calls.get(timeout=self._wait_s)
            except Empty:
                break
            if call.channels.shape != first.channels.shape:
                return calls, call
            calls.append(call)
        return calls, None


def _answer(calls: Sequence[_Call], together: Together) -> None:
    try:
        answers = together(np.stack([call.channels for call in calls]))
    except BaseException as error:  # noqa: BLE001 - raised in the threads that asked
        for call in calls:
            call.answer.set_exception(error)
        return
    for call, answer in zip(calls, answers, strict=True):
        call.answer.set_result(answer)

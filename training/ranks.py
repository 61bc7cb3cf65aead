"""One training by several processes, as torchrun starts them: which of them this is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Process `number` of `of`. The first one writes checkpoint and log."""

    number: int = 0
    of: int = 1

    @property
    def first(self) -> bool:
        """Whether this process speaks for all."""
        return self.number == 0


ALONE = Rank()


@contextmanager
def joined(device: str) -> Iterator[tuple[Rank, str]]:
    """Join the processes that torchrun started, by its variables; (rank, the device of this process).

    Without torchrun nothing is joined. Processes talk by nccl on cuda, each on a card of its own, else by gloo.
    """
    rank = Rank(number=int(os.environ.get("RANK", "0")), of=int(os.environ.get("WORLD_SIZE", "1")))
    if rank.of == 1:
        yield rank, device
        return
    cuda = device.startswith("cuda")
    if cuda:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield rank, device
    finally:
        torch.distributed.destroy_process_group()

"""Stage: train one of the networks on patches made on the fly. Resumes from its last checkpoint.

On several GPUs: torchrun --nproc-per-node 4 -m sacroleak.training.train_segmenter --device cuda and the same options.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from sacroleak.core.config import load_config
from sacroleak.core.errors import ModelError
from sacroleak.models.architecture import ANATOMY_CHANNELS, NetworkSpec, build_network, set_weights, weights_in
from sacroleak.models.effort import Effort, precision_of
from sacroleak.training.losses import segmentation_loss
from sacroleak.training.manifests import anatomies_of
from sacroleak.training.pictures import learning_curve
from sacroleak.training.plain_norm import quick_on_cpu
from sacroleak.training.progress import progress
from sacroleak.training.ranks import ALONE, Rank, joined
from sacroleak.training.sampling import UNDER, SyntheticPatches
from sacroleak.training.tracking import UNTRACKED, Tracker, data_digest, tracked


class TrainConfig(BaseModel):
    """Everything that decides a training run. `wild_share`: of the cases that are randomised far beyond realism.
    `begin_with`: the network whose training, in the folder beside, gives a new run its first weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    network: NetworkSpec
    updates: int
    learning_rate: float
    warm_up: int
    weight_decay: float
    gradient_clip: float
    ema_decay: float
    workers: int
    threads: int
    seed: int
    checkpoint_every: int
    batch: int = 1
    compiled: bool = False
    wild_share: float = Field(default=0.5, ge=0.0, le=1.0)
    begin_with: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a run is carried out. `start_from`: an exported network whose weights a new run begins with; one that goes
    on has its own. `console`: where progress is shown, None for nowhere.
    """

    device: str = "cpu"
    start_from: Path | None = None
    rank: Rank = ALONE
    tracker: Tracker = UNTRACKED
    console: Console | None = None


class Trainer:
    """Network, its smoothed copy, optimiser, and how many updates and samples there were; saved and loaded as one."""

    def __init__(self, config: TrainConfig, *, device: str, rank: Rank = ALONE) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device, self.rank, self.update, self.samples = config, torch.device(device), rank, 0, 0
        # A CPU without such arithmetic emulates it, fifteen times slower.
        self._half = precision_of(Effort.STANDARD, self.device.type) == "bf16"
        self.network = build_network(config.network.filters).to(self.device)
        if not self._half:  # on a graphics card it always is
            quick_on_cpu(self.network)
        self.smooth = build_network(config.network.filters).to(self.device)
        self.smooth.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=config.learning_rate,
                                           weight_decay=config.weight_decay)
        # Gradients become the mean of all processes', so that all make the same update.
        self._shared = DistributedDataParallel(self.network) if rank.of > 1 else self.network
        # Compiled, an update takes 0.6 of the time on a CPU; it needs a C++ compiler and a minute at the start.
        self._loss_of = torch.compile(self._forward) if config.compiled else self._forward

    def _forward(self, channels: Tensor, anatomy: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._half):
            logits: Tensor = self._shared(channels.float())
        under = self.config.network.name == UNDER
        return segmentation_loss(logits, channels, anatomy, dense, under=under), logits

    def step(self, channels: Tensor, anatomy: Tensor, dense: Tensor) -> tuple[float, Tensor]:
        """One update; returns the loss and the logits it came from. Raises ModelError when the loss is no number."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.config, self.update)
        loss, logits = self._loss_of(*(t.to(self.device) for t in (channels, anatomy, dense)))
        if not torch.isfinite(loss):
            raise ModelError(f"update {self.update}: the loss is not a number; go on from an earlier checkpoint")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.optimiser.step()
        self.update += 1
        self.samples += len(channels) * self.rank.of
        self._follow()
        return float(loss.detach()), logits.detach()

    def _follow(self) -> None:
        """Exponential moving average, quick at first so that early checkpoints are of use."""
        decay = min(self.config.ema_decay, (1 + self.update) / (10 + self.update))
        with torch.no_grad():
            for mean, value in zip(self.smooth.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)

    def start_from(self, path: Path) -> None:
        """Begin with the weights of an exported network (ONNX) of the same shape. Raises ModelError for another."""
        weights = weights_in(path)
        try:
            for network in (self.network, self.smooth):
                set_weights(network, weights)
        except ValueError as error:
            raise ModelError(f"{path.name}: is not of this network's shape (first difference: {error})") from error

    def begin_with(self, path: Path) -> None:
        """Begin with the smoothed weights of another training's checkpoint. Raises ModelError if it is not there, or of
        a network of another shape.
        """
        if not path.is_file():
            raise ModelError(f"{path.parent.name}: no checkpoint to begin with; train that network first")
        weights = torch.load(path, map_location=self.device, weights_only=True)["smooth"]
        try:
            for network in (self.network, self.smooth):
                network.load_state_dict(weights)
        except RuntimeError as error:
            raise ModelError(f"{path.parent.name}: is not of this network's shape") from error

    def save(self, path: Path) -> None:
        """Write the checkpoint whole or not at all."""
        state = {"update": self.update, "samples": self.samples, "network": self.network.state_dict(),
                 "smooth": self.smooth.state_dict(), "optimiser": self.optimiser.state_dict()}
        temporary = path.with_suffix(".part")
        torch.save(state, temporary)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Go on where `save` stopped; loads tensors only, never code."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.smooth.load_state_dict(state["smooth"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.update = int(state["update"])
        self.samples = int(state.get("samples", self.update * self.config.batch))


def learning_rate(config: TrainConfig, update: int) -> float:
    """Linear warm-up, then a cosine down to a hundredth."""
    if update < config.warm_up:
        return config.learning_rate * (update + 1) / config.warm_up
    done = min((update - config.warm_up) / max(config.updates - config.warm_up, 1), 1.0)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def dice_of(logits: Tensor, anatomy: Tensor, dense: Tensor) -> dict[str, float | None]:
    """Dice of this patch by structure; None where it is absent."""
    guess = logits[:, :ANATOMY_CHANNELS].argmax(1).cpu()
    pairs = {name: (guess == n, anatomy == n) for n, name in enumerate(
        ("background", "sacrum", "canal", "hip_left", "hip_right", "l5")) if n}
    for n, name in enumerate(("cement", "metal")):
        pairs[name] = (logits[:, ANATOMY_CHANNELS + n].cpu() > 0, dense[:, n] > 0)
    return {name: float(2 * (a & b).sum() / (a.sum() + b.sum())) if b.any() else None for name, (a, b) in pairs.items()}


def main(config: TrainConfig, *, anatomies: Path, manifest: Path, out: Path, how: How | None = None) -> Path:
    """Train until `config.updates`, or go on from the checkpoint in `out`; returns the checkpoint.

    `log.jsonl` beside it gets a line every 20 updates.
    """
    how = how or How()
    torch.set_num_threads(config.threads)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    trainer = Trainer(config, device=how.device, rank=how.rank)
    if checkpoint.exists():
        trainer.load(checkpoint)
    elif how.start_from is not None:
        trainer.start_from(how.start_from)
    elif config.begin_with:
        trainer.begin_with(out.with_name(f"train_{config.begin_with}") / checkpoint.name)
    files = anatomies_of("train", anatomies, manifest)
    samples = SyntheticPatches(files, config.network, seed=config.seed, start=trainer.samples + how.rank.number,
                               every=how.rank.of, wild_share=config.wild_share)
    loader = DataLoader(samples, batch_size=config.batch, num_workers=config.workers,
                        prefetch_factor=4 if config.workers else None)
    lines = _run(trainer, iter(loader), checkpoint)
    if not how.rank.first:
        list(lines)
        return checkpoint
    how.tracker.settings(config)
    how.tracker.tags({"data_digest": data_digest(manifest, files), "processes": str(how.rank.of)})
    bar = progress(config.updates, done=trainer.update, console=how.console)
    with (out / "log.jsonl").open("a") as log, bar as tell:
        for line in lines:
            log.write(json.dumps(line) + "\n")
            log.flush()
            how.tracker.metrics({k: v for k, v in line.items() if k != "update"}, step=trainer.update)
            tell(line)
    if how.tracker is not UNTRACKED:
        how.tracker.picture(learning_curve(out / "log.jsonl"), "learning_curve.png")
        how.tracker.file(out / "log.jsonl")
    return checkpoint


def _run(trainer: Trainer, batches: Iterator[list[Tensor]], checkpoint: Path) -> Iterator[dict[str, object]]:
    config = trainer.config
    losses: list[float] = []
    scores: dict[str, list[float]] = {}
    began = time.monotonic()
    while trainer.update < config.updates:
        channels, anatomy, dense = next(batches)
        loss, logits = trainer.step(channels, anatomy, dense)
        losses.append(loss)
        if trainer.update % 2 == 0:
            for name, value in dice_of(logits, anatomy, dense).items():
                if value is not None:
                    scores.setdefault(name, []).append(value)
        if trainer.update % 20 == 0 or trainer.update == config.updates:
            yield {"update": trainer.update, "loss": sum(losses) / len(losses), "seconds": time.monotonic() - began,
                   **{f"dice_{name}": sum(v) / len(v) for name, v in scores.items()}}
            losses, scores = [], {}
        due = trainer.update % config.checkpoint_every == 0 or trainer.update == config.updates
        if due and trainer.rank.first:
            trainer.save(checkpoint)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--anatomies", type=Path, default=Path("artifacts/anatomies"))
    parser.add_argument("--manifest", type=Path, default=Path("data_manifests/anatomies.csv"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--start-from", type=Path, help="an exported network (ONNX) to begin with")
    given = parser.parse_args()
    settings = load_config(given.config, TrainConfig)
    given.out.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(KeyboardInterrupt), joined(given.device) as (own, on), contextlib.ExitStack() as run:
        chosen = How(device=on, start_from=given.start_from, rank=own)
        if own.first:
            follow = tracked("train", f"train {settings.network.name}", beside=given.out)
            chosen = replace(chosen, console=Console(stderr=True), tracker=run.enter_context(follow))
        main(settings, anatomies=given.anatomies, manifest=given.manifest, out=given.out, how=chosen)

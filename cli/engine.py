"""What scores: bundle, networks, rules and configuration, loaded when a command needs them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sacroleak.inference.crew import CrewWish
    from sacroleak.inference.run_record import RunFacts
    from sacroleak.inference.score_one import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """What the user asked for; None takes what configuration and installation say."""

    bundle: Path | None
    mode: str | None
    preview: bool
    debug: bool
    effort: str | None = None
    threads: int | None = None
    workers: int | None = None
    memory_mib: int | None = None
    device: str = "cpu"


def open_engine(choice: EngineChoice, inputs: list[str]) -> tuple[Engine, RunFacts]:
    """Verify everything a run needs; the networks are loaded where they are used. Raises ModelError or ConfigError."""
    from sacroleak.inference.config import config_digest, load_limits, load_score_config
    from sacroleak.inference.released import ReleasedSegmenter
    from sacroleak.inference.run_record import RunFacts
    from sacroleak.inference.score_one import Engine
    from sacroleak.models.bundle import default_bundle, load_bundle
    from sacroleak.models.classifier import load_classifier
    from sacroleak.models.graphics import require_card
    from sacroleak.models.runtime import CPU

    if choice.device != CPU:
        require_card(choice.device)
    config, limits = load_score_config(), load_limits()
    outputs = config.outputs(choice.mode, preview=choice.preview)
    threads = choice.threads or config.threads or len(os.sched_getaffinity(0))  # changed once the crew is known
    bundle = default_bundle() if choice.bundle is None else load_bundle(choice.bundle)
    effort = config.effort_of(choice.effort)
    segmenter = ReleasedSegmenter(bundle, threads=threads, effort=effort, device=choice.device)
    engine = Engine(segmenter=segmenter, limits=limits, outputs=outputs, version=version("sacroleak"),
                    bundle=bundle.name, bundle_digest=bundle.digest,
                    config_digest=config_digest(limits, outputs, effort), debug=choice.debug,
                    classifier=load_classifier(bundle))
    return engine, RunFacts(inputs=inputs, mode=choice.mode or config.mode, effort=effort.value)


def crew_wish(choice: EngineChoice) -> CrewWish:
    """Processes, threads and memory: what the command line says, else the configuration, else None: what fits."""
    from sacroleak.inference.config import load_score_config
    from sacroleak.inference.crew import CrewWish
    from sacroleak.models.runtime import CPU

    config = load_score_config()
    return CrewWish(workers=config.workers if choice.workers is None else choice.workers,
                    threads=choice.threads or config.threads or None,
                    memory_mib=choice.memory_mib or config.memory_limit_mib or None, card=choice.device != CPU)

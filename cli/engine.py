"""What scores: bundle, networks, rules and configuration, loaded when a command needs them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sacroleak.inference.run_record import RunFacts
    from sacroleak.inference.score_one import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """What the user asked for; None takes what configuration and installation say."""

    bundle: Path | None
    mode: str | None
    threads: int | None
    preview: bool
    debug: bool


def open_engine(choice: EngineChoice, inputs: list[str]) -> tuple[Engine, RunFacts]:
    """Load and verify everything a run needs. Raises ModelError or ConfigError."""
    from sacroleak.inference.config import config_digest, load_limits, load_score_config
    from sacroleak.inference.run_record import RunFacts
    from sacroleak.inference.score_one import Engine
    from sacroleak.models.bundle import default_bundle, load_bundle
    from sacroleak.models.networks import load_segmenter

    config, limits = load_score_config(), load_limits()
    outputs = config.outputs(choice.mode, preview=choice.preview)
    threads = choice.threads or config.threads or len(os.sched_getaffinity(0))
    bundle = default_bundle() if choice.bundle is None else load_bundle(choice.bundle)
    engine = Engine(segmenter=load_segmenter(bundle, threads=threads), limits=limits, outputs=outputs,
                    version=version("sacroleak"), bundle=bundle.name, bundle_digest=bundle.digest,
                    config_digest=config_digest(limits, outputs), debug=choice.debug)
    return engine, RunFacts(inputs=inputs, mode=choice.mode or config.mode, threads=threads)

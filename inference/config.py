"""What a scoring run writes, and what it may take: `configs/score.yaml`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sacroleak.core.config import load_config
from sacroleak.core.errors import ConfigError
from sacroleak.core.needle import NeedleNote
from sacroleak.core.resources import config_path
from sacroleak.models.effort import Effort
from sacroleak.models.limits import RuleLimits, limits_from_yaml

OUTPUT_FORMAT = 1
"""Raised when what a case folder holds changes, so that older ones are scored again."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Outputs(_Strict):
    """What is written per scan beside its report."""

    label_images: bool
    preview: bool


class ScoreConfig(_Strict):
    """`configs/score.yaml`. Unknown keys fail."""

    mode: str
    modes: dict[str, Outputs]
    effort: Effort
    threads: int = Field(ge=0, le=1024)
    workers: int | None = Field(ge=0, le=1024)
    time_limit_s: float = Field(gt=0)
    memory_limit_mib: int = Field(ge=0)

    @model_validator(mode="after")
    def _mode_exists(self) -> ScoreConfig:
        if self.mode not in self.modes:
            raise ValueError(f"mode {self.mode!r} is not among modes: {', '.join(sorted(self.modes))}")
        return self

    def outputs(self, mode: str | None, *, preview: bool) -> Outputs:
        """The outputs of `mode` (the default one if None). Raises ConfigError if there is no such mode."""
        name = self.mode if mode is None else mode
        if name not in self.modes:
            raise ConfigError(f"mode {name!r}: unknown, wanted one of {', '.join(sorted(self.modes))}")
        chosen = self.modes[name]
        return chosen if preview else chosen.model_copy(update={"preview": False})


    def effort_of(self, name: str | None) -> Effort:
        """The effort called `name` (the default one if None). Raises ConfigError if there is none of that name."""
        if name is not None and name not in set(Effort):
            raise ConfigError(f"effort {name!r}: unknown, wanted one of {', '.join(Effort)}")
        return self.effort if name is None else Effort(name)


def load_score_config(path: Path | None = None) -> ScoreConfig:
    """The configuration at `path`, or the one of this installation. Raises ConfigError."""
    return load_config(config_path("score.yaml") if path is None else path, ScoreConfig)


def load_limits(path: Path | None = None) -> RuleLimits:
    """The rules' limits at `path`, or those of this installation. Raises ConfigError."""
    source = config_path("rules.yaml") if path is None else path
    try:
        return limits_from_yaml(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{source.name}: cannot be read: {error.strerror}") from error


def config_digest(limits: RuleLimits, outputs: Outputs, effort: Effort) -> str:
    """sha256 in hex of all that decides what any case folder holds; processes, threads and limits of a run do not.

    How the manifest's word on needles is weighed is left to `needles_digest`: most scans come without any.
    """
    rules = limits.model_dump(mode="json", exclude={"needles"})
    return _digest({"format": OUTPUT_FORMAT, "rules": rules, "outputs": outputs.model_dump(), "effort": effort.value})


def needles_digest(needles: NeedleNote | None, limits: RuleLimits) -> str:
    """sha256 in hex of what is known of a scan's needles and of how it is weighed; empty where nothing is known."""
    if needles is None:
        return ""
    return _digest({"approach": needles.approach, "entries_lps_mm": needles.entries_lps_mm,
                    "weighed": limits.needles.model_dump(mode="json")})


def _digest(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

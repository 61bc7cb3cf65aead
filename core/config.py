"""Configuration files: YAML in, one typed and frozen value out."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sacroleak.core.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def load_config(path: Path, model: type[Model]) -> Model:
    """Read `path` as `model`. Raises ConfigError naming the first key that is unknown, missing or impossible."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_config(text, model, name=path.name)


def parse_config(text: str, model: type[Model], *, name: str) -> Model:
    """The same for text already read; `name` is used in messages."""
    try:
        return model.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{name}: {where}: {first['msg']}") from error

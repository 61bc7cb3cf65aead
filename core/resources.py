"""Where the files that come with the code lie, in a checkout and in an installed wheel alike."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from sacroleak.core.errors import ConfigError


def config_path(name: str) -> Path:
    """`configs/<name>` of this installation. Raises ConfigError if it is not there.

    `configs/` is the neighbour of `core/` both in the checkout and inside the wheel's `sacroleak/`.
    """
    path = Path(str(files("sacroleak.core"))).parent / "configs" / name
    if not path.is_file():
        raise ConfigError(f"configuration {name}: not part of this installation, wanted configs/{name}")
    return path


def released_models() -> Path:
    """The folder `models/released` of this installation; it may be empty or missing."""
    return Path(str(files("sacroleak.core"))).parent / "models" / "released"

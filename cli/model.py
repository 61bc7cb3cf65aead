"""`sacroleak model`: which released models there are, and what one says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Name = Annotated[str | None, typer.Argument(help="Name of a released model, or the folder of one; the one in use if "
                                                 "not given.", metavar="NAME")]


def list_models() -> None:
    """List the released models of this installation; a star marks the one in use."""
    from sacroleak.core.resources import released_models
    from sacroleak.models.bundle import CHAMPION, load_bundle, released_names

    champion_file = released_models() / CHAMPION
    champion = champion_file.read_text(encoding="utf-8").strip() if champion_file.is_file() else ""
    names = released_names()
    if not names:
        print("No released model in this installation.")
    for name in names:
        bundle = load_bundle(released_models() / name)
        mark = "*" if name == champion else " "
        print(f"{mark} {name}  version {bundle.index.version}  {bundle.index.created:%Y-%m-%d}  {bundle.digest[:12]}")


def show_model(name: Name = None) -> None:
    """Verify a released model and print its card, networks and digests."""
    from sacroleak.core.resources import released_models
    from sacroleak.models.bundle import default_bundle, load_bundle, released_names

    if name is None:
        bundle = default_bundle()
    elif name in released_names():
        bundle = load_bundle(released_models() / name)
    else:
        bundle = load_bundle(Path(name))
    index = bundle.index
    print(f"{bundle.name}, released {index.created:%Y-%m-%d}, all files whole\ndigest {bundle.digest}")
    for key, network in index.networks.items():
        spacing = " x ".join(f"{s:g}" for s in network.spacing_mm)
        print(f"network {key}: {network.file}, {spacing} mm, sha256 {network.sha256}")
    for data in index.training_data:
        print(f"learned from: {data.name} ({data.licence}) {data.source}")
    print()
    print(bundle.card())

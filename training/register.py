"""Stage: the released model becomes a version in MLflow's registry, the challenger; a person makes it the champion.

    python -m sacroleak.training.register                     the release becomes the challenger
    python -m sacroleak.training.register promote             the challenger becomes the champion
    python -m sacroleak.training.register promote --version 3  or another version does
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel, ConfigDict

from sacroleak.core.config import load_config
from sacroleak.core.errors import ModelError
from sacroleak.core.whole import write_whole
from sacroleak.models.bundle import Bundle, default_bundle, load_bundle
from sacroleak.training.evaluation_run import ABOUT
from sacroleak.training.tracking import BUNDLE_FOLDER, store, tracked

CHALLENGER, CHAMPION, FORMER = "challenger", "champion", "former_champion"
SCORING_MODEL = Path(__file__).with_name("scoring_model.py")


class RegisterConfig(BaseModel):
    """`configs/register.yaml`. `shown`: figures of `metrics/segmenter.json` and `leakage.json` that a version bears."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    shown: tuple[str, ...]


def main(config: RegisterConfig, *, bundle: Bundle, metrics: Path, out: Path) -> str:
    """Register `bundle` with its measured figures, unless it is there, and call it the challenger; its version.

    `out` gets name, version and digest. Raises ModelError if the store cannot be used.
    """
    client = store()
    known = [v for v in client.search_model_versions(f"name = '{config.name}'")
             if v.tags.get("bundle_digest") == bundle.digest]
    number = str(known[0].version) if known else _log(config, bundle, client)
    for name, value in _figures(config, bundle, metrics).items():
        client.set_model_version_tag(config.name, number, name, value)
    client.set_registered_model_alias(config.name, CHALLENGER, number)
    out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"name": config.name, "version": number, "bundle": bundle.name, "bundle_digest": bundle.digest}
    write_whole(out, json.dumps(facts, indent=1).encode() + b"\n")
    return number


def promote(config: RegisterConfig, number: str | None = None) -> str:
    """Make version `number`, the challenger unless given, the champion; the champion so far stays as the former one.

    Returns the version. Raises ModelError if there is none.
    """
    client = store()
    aliases = _aliases(client, config.name)
    chosen = number or aliases.get(CHALLENGER)
    known = {str(v.version) for v in client.search_model_versions(f"name = '{config.name}'")}
    if chosen is None or chosen not in known:
        there = ", ".join(sorted(known)) or "none"
        raise ModelError(f"{config.name}: no version {chosen or CHALLENGER}, there are: {there}")
    if aliases.get(CHAMPION) not in {None, chosen}:
        client.set_registered_model_alias(config.name, FORMER, aliases[CHAMPION])
    client.set_registered_model_alias(config.name, CHAMPION, chosen)
    return chosen


def _log(config: RegisterConfig, bundle: Bundle, client: Any) -> str:
    """Keep the release as a model in a run of its own and make that a version."""
    with tracked("register", f"register {bundle.name}") as run, TemporaryDirectory() as place:
        if run.run_id is None:
            raise ModelError("MLflow: the store cannot be used; MLFLOW_TRACKING_URI says where it is")
        run.tags({"bundle": bundle.name, "bundle_digest": bundle.digest})
        run.file(bundle.folder, BUNDLE_FOLDER)
        _save(Path(place) / "model", f"runs:/{run.run_id}/{BUNDLE_FOLDER}")
        run.file(Path(place) / "model")
    if not client.search_registered_models(f"name = '{config.name}'"):
        client.create_registered_model(config.name)
    made = client.create_model_version(config.name, f"runs:/{run.run_id}/model", run.run_id, description=bundle.card(),
                                       tags={"bundle": bundle.name, "bundle_digest": bundle.digest})
    return str(made.version)


def _save(folder: Path, bundle_uri: str) -> None:
    """The model's code and the release as one folder. MLflow would note where on this machine both were: the release
    is therefore taken from the run, and of the code's path the name is left, which is all that loading reads.
    """
    import mlflow  # two seconds, and `store` has set its variables

    mlflow.pyfunc.save_model(
        str(folder), python_model=str(SCORING_MODEL), artifacts={"bundle": bundle_uri},
        pip_requirements=[f"sacroleak=={version('sacroleak')}", f"mlflow=={mlflow.__version__}"])
    described = mlflow.models.Model.load(str(folder))
    described.flavors["python_function"]["model_code_path"] = SCORING_MODEL.name
    described.save(str(folder / "MLmodel"))


def _figures(config: RegisterConfig, bundle: Bundle, metrics: Path) -> dict[str, str]:
    """The figures to show, if they were measured on this release."""
    about = json.loads((metrics / ABOUT).read_text(encoding="utf-8")) if (metrics / ABOUT).is_file() else {}
    if about.get("benchmark", {}).get("bundle_digest") != bundle.digest:
        return {"measured": "no"}
    figures: dict[str, Any] = {}
    for stage in ("segmenter", "leakage"):
        figures |= json.loads((metrics / f"{stage}.json").read_text(encoding="utf-8"))
    return {"measured": "yes"} | {name: _said(figures[name]) for name in config.shown if name in figures}


def _said(figure: dict[str, float | None]) -> str:
    between = "" if figure["low"] is None else f", 95 % {figure['low']} to {figure['high']}"
    return f"{figure['value']} (n {figure['n']}{between})"


def _aliases(client: Any, name: str) -> dict[str, str]:
    found = client.search_registered_models(f"name = '{name}'")
    return {alias: str(number) for model in found for alias, number in model.aliases.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("register", "promote"), default="register")
    parser.add_argument("--config", type=Path, default=Path("configs/register.yaml"))
    parser.add_argument("--bundle", type=Path, help="folder of a release; the released champion unless given")
    parser.add_argument("--released", type=Path, help="folder of releases, whose champion is registered")
    parser.add_argument("--metrics", type=Path, default=Path("metrics"))
    parser.add_argument("--out", type=Path, default=Path("artifacts/registered.json"))
    parser.add_argument("--version", help="promote: the version; the challenger unless given")
    given = parser.parse_args()
    settings = load_config(given.config, RegisterConfig)
    if given.what == "promote":
        promote(settings, given.version)
    else:
        release = default_bundle(given.released) if given.bundle is None else load_bundle(given.bundle)
        main(settings, bundle=release, metrics=given.metrics, out=given.out)

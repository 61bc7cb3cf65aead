"""What a stage leaves in MLflow: settings, code and data it came from, figures, files.

`MLFLOW_TRACKING_URI` and MLflow's other variables say where; without them the store is `mlflow.db` and `mlruns/` in the
folder the command runs in. No scan, no patient's text and no path of this machine is ever logged.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from pydantic import BaseModel

from sacroleak.core.whole import sha256_of, write_whole
from sacroleak.training.circumstances import commit

EXPERIMENT = "sacroleak"
RUN_FILE = "mlflow_run.txt"
"""Beside a checkpoint: the run that its training belongs to."""
BUNDLE_FOLDER = "bundle"
"""Where a release's run keeps its networks, card and licences."""
LONGEST_VALUE = 500
"""Characters of a parameter that every store accepts."""
MOST_AT_ONCE = 500
"""Metrics in one message; stores refuse a thousand."""
PATIENCE = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Unless the caller has set them: nothing is reported to MLflow's makers, and an unreachable server, which MLflow would
ask again for many minutes, does not hold up a training."""

log = logging.getLogger(__name__)


class Tracker:
    """One run of the store, or none. What the store refuses is said once; then the work goes on untracked."""

    def __init__(self, client: Any = None, run_id: str | None = None, *,
                 clock: Callable[[], float] = time.time) -> None:
        self._client, self.run_id, self._clock = client, run_id, clock

    def parameters(self, values: Mapping[str, object]) -> None:
        """Settings, nested ones with a dot between. A changed one of a run that goes on: tag `now.…`."""
        flat = {name: str(value)[:LONGEST_VALUE] for name, value in flattened(values)}
        self._do(lambda: self._parameters(flat))

    def _parameters(self, flat: Mapping[str, str]) -> None:
        known = self._client.get_run(self.run_id).data.params
        for name, value in flat.items():
            if name not in known:
                self._client.log_param(self.run_id, name, value)
            elif known[name] != value:
                self._client.set_tag(self.run_id, f"now.{name}", value)

    def tags(self, values: Mapping[str, str]) -> None:
        """What the run is found by."""
        self._do(lambda: [self._client.set_tag(self.run_id, name, value) for name, value in values.items()])

    def metrics(self, values: Mapping[str, object], *, step: int = 0) -> None:
        """All numbers of `values`; other things are left out."""
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        self._do(lambda: self._metrics(numbers, step))

    def figures(self, values: Mapping[str, Mapping[str, float | None]]) -> None:
        """Measured figures as metrics files hold them: `name`, `name_n`, and the interval `name_low`, `name_high`."""
        self.metrics({plain(name) if part == "value" else f"{plain(name)}_{part}": value
                      for name, figure in values.items() for part, value in figure.items()})

    def _metrics(self, numbers: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric  # mlflow takes two seconds to load

        now = int(1000 * self._clock())
        given = [Metric(name, value, now, step) for name, value in numbers.items()]
        for start in range(0, len(given), MOST_AT_ONCE):
            self._client.log_batch(self.run_id, metrics=given[start : start + MOST_AT_ONCE])

    def file(self, path: Path, folder: str = "") -> None:
        """A file or a folder of files, kept in `folder` of the run."""
        if path.is_dir():
            self._do(lambda: self._client.log_artifacts(self.run_id, str(path), folder or path.name))
        else:
            self._do(lambda: self._client.log_artifact(self.run_id, str(path), folder or None))

    def text(self, content: str, name: str) -> None:
        """A text kept as the file `name`."""
        self._do(lambda: self._client.log_text(self.run_id, content, name))

    def picture(self, png: bytes, name: str) -> None:
        """A PNG kept as the file `name`."""
        self._do(lambda: self._picture(png, name))

    def _picture(self, png: bytes, name: str) -> None:
        folder, _, last = name.rpartition("/")
        with TemporaryDirectory() as place:
            path = Path(place) / last
            path.write_bytes(png)
            self._client.log_artifact(self.run_id, str(path), folder or None)

    def settings(self, config: BaseModel) -> None:
        """A stage's configuration, as parameters and as the file `config.yaml`."""
        content = config.model_dump(mode="json")
        self.parameters(content)
        self.text(yaml.safe_dump(content, sort_keys=False), "config.yaml")

    def end(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""
        self._do(lambda: self._client.set_terminated(self.run_id, status))

    def _do(self, action: Callable[[], object]) -> None:
        if self._client is None:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001 - a store has a hundred ways to fail, and none may end a training
            self._client = None
            log.warning("MLflow: %s; the work goes on untracked", _first_line(error))


UNTRACKED = Tracker()
"""Takes everything and keeps nothing."""


@contextmanager
def tracked(stage: str, name: str, *, beside: Path | None = None, experiment: str = EXPERIMENT) -> Iterator[Tracker]:
    """A run of `stage`, ended as what is done in it ends. With `beside` its id is kept in that folder, and a run whose
    id is there goes on. MLFLOW_EXPERIMENT_NAME, if set, has precedence over `experiment`.
    """
    tracker = _open(stage, name, beside, experiment)
    try:
        yield tracker
    except KeyboardInterrupt:
        tracker.end("KILLED")
        raise
    except BaseException:
        tracker.end("FAILED")
        raise
    tracker.end("FINISHED")


def data_digest(manifest: Path, anatomies: Iterable[Path]) -> str:
    """sha256 in hex over the manifest and over name and content of each file."""
    parts = [sha256_of(manifest), *(f"{path.name} {sha256_of(path)}" for path in sorted(anatomies))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def store() -> Any:
    """A client of the store that MLflow's variables name."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    for teller in ("alembic", "mlflow.store.db.utils"):  # else they tell of every table of a new store
        logging.getLogger(teller).setLevel(logging.WARNING)
    from mlflow import MlflowClient  # two seconds, and only once its variables are set

    return MlflowClient()


def plain(name: str) -> str:
    """A figure's name in the letters MLflow allows: `found[slices<=1.5mm]` becomes `found/slices_up_to_1.5mm`."""
    for mark, words in (("<=", "_up_to_"), (">=", "_from_"), ("[", "/"), ("]", ""), (">", "_as_")):
        name = name.replace(mark, words)
    return re.sub(r"[^\w./ :-]", "_", name)


def flattened(values: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    """(`a.b`, value) of nested mappings; lists as JSON."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{before}{name}.")
        else:
            yield before + name, json.dumps(value) if isinstance(value, list | tuple) else value


def _open(stage: str, name: str, beside: Path | None, experiment: str) -> Tracker:
    try:
        client = store()
        kept = beside / RUN_FILE if beside is not None else None
        if kept is not None and kept.is_file():
            run_id = kept.read_text(encoding="utf-8").strip()
            client.update_run(run_id, status="RUNNING")
        else:
            tags = {"stage": stage, "commit": commit()}
            run_id = client.create_run(_experiment(client, experiment), run_name=name, tags=tags).info.run_id
            if kept is not None:
                write_whole(kept, f"{run_id}\n".encode())
    except Exception as error:  # noqa: BLE001 - as in Tracker: whatever is wrong with the store, the work is done
        log.warning("MLflow: %s; the work goes on untracked", _first_line(error))
        return UNTRACKED
    return Tracker(client, run_id)


def _experiment(client: Any, experiment: str) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", experiment)
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except Exception:  # noqa: BLE001 - two trainings that begin together: the other one was first
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"

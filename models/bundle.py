"""A released model on disk: exported networks, what they expect, and the digests that prove them whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sacroleak.core.errors import ModelError
from sacroleak.core.resources import released_models
from sacroleak.core.structures import Structure
from sacroleak.core.whole import sha256_of, whole_folder

INDEX = "bundle.json"
CARD = "MODEL_CARD.md"
LICENCES = "LICENSES"
CLASSIFIER = "classifier.json"
"""Of releases that have one; the others go by the rules alone."""
CHAMPION = "CHAMPION"

PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
OnnxName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,94}\.onnx$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Number = float | int
Facts = dict[str, str | Number | bool | list[str] | list[Number]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IntensityWindow(_Strict):
    """HU that are clipped and mapped to [-1, 1] as one input channel of the networks."""

    low_hu: float
    high_hu: float

    @model_validator(mode="after")
    def _ordered(self) -> IntensityWindow:
        if self.low_hu >= self.high_hu:
            raise ValueError(f"low_hu {self.low_hu} must lie below high_hu {self.high_hu}")
        return self


class NetworkDraft(_Strict):
    """One exported network: voxel size it was trained at, the tile it is fed with, its output channels by name."""

    file: OnnxName
    spacing_mm: tuple[float, float, float]
    tile: tuple[int, int, int]
    outputs: list[str]
    overlap: float = Field(default=0.25, ge=0.0, lt=1.0)


class NetworkEntry(NetworkDraft):
    """A network as released, with its file's sha256."""

    sha256: Digest


class TrainingData(_Strict):
    """One data set a network has learned from, with the licence it came under."""

    name: str
    licence: str
    source: str


class _Described(_Strict):
    name: PlainName
    version: str
    created: datetime
    intensity: tuple[IntensityWindow, ...]
    structures: list[str] = [s.name.lower() for s in Structure if s is not Structure.CEMENT]
    training: Facts
    training_data: list[TrainingData]


class BundleDraft(_Described):
    """All that a release says about itself before its files are written."""

    networks: dict[str, NetworkDraft]


class BundleIndex(_Described):
    """`bundle.json`. `files` holds the sha256 of what travels with the networks: texts, and the classifier if any."""

    format: Literal[1] = 1
    networks: dict[str, NetworkEntry]
    files: dict[PlainName, Digest]

    @model_validator(mode="after")
    def _complete(self) -> BundleIndex:
        missing = {"coarse", "fine"} - self.networks.keys()
        if missing:
            raise ValueError(f"networks: missing {', '.join(sorted(missing))}")
        if not {CARD, LICENCES} <= self.files.keys():
            raise ValueError(f"files: wanted {CARD} and {LICENCES}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A verified release: its folder, its index, and the sha256 of `bundle.json`, which covers every other file."""

    folder: Path
    index: BundleIndex
    digest: str

    @property
    def name(self) -> str:
        """Name and version in one word, as reports give it."""
        return f"{self.index.name} {self.index.version}"

    def network_path(self, network: str) -> Path:
        """The ONNX file of one network. Raises ModelError if the bundle has none of that name."""
        if network not in self.index.networks:
            raise ModelError(f"bundle {self.index.name}: no network {network}, it has {', '.join(self.index.networks)}")
        return self.folder / self.index.networks[network].file

    @property
    def classifier_path(self) -> Path | None:
        """The classifier's file; None if the release goes by the rules alone."""
        return self.folder / CLASSIFIER if CLASSIFIER in self.index.files else None

    def card(self) -> str:
        """The model card, Markdown."""
        return (self.folder / CARD).read_text(encoding="utf-8")


def load_bundle(folder: Path) -> Bundle:
    """Read and verify a release. Raises ModelError if anything is missing, unknown or not what its digest says."""
    index_path = folder / INDEX
    if not index_path.is_file():
        raise ModelError(f"bundle {folder.name}: no {INDEX}; give the folder of a released model")
    data = index_path.read_bytes()
    try:
        index = BundleIndex.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"bundle {folder.name}: {INDEX}: {where}: {first['msg']}") from error
    wanted = {entry.file: entry.sha256 for entry in index.networks.values()} | index.files
    for name, digest in wanted.items():
        _verify(folder / name, digest)
    return Bundle(folder=folder, index=index, digest=hashlib.sha256(data).hexdigest())


def default_bundle(released: Path | None = None) -> Bundle:
    """The release that the file CHAMPION names. Raises ModelError if there is none."""
    folder = released_models() if released is None else released
    champion = folder / CHAMPION
    if not champion.is_file():
        raise ModelError("no released model: this installation has no models/released/CHAMPION; give --bundle PATH")
    name = champion.read_text(encoding="utf-8").strip()
    if name not in released_names(folder):
        raise ModelError(f"released model {name!r} named in CHAMPION is not in models/released; give --bundle PATH")
    return load_bundle(folder / name)


def released_names(released: Path | None = None) -> tuple[str, ...]:
    """Names of the releases of this installation, sorted."""
    folder = released_models() if released is None else released
    if not folder.is_dir():
        return ()
    return tuple(sorted(p.name for p in folder.iterdir() if (p / INDEX).is_file() and not p.name.startswith(".")))


def write_bundle(released: Path, draft: BundleDraft, *, networks: Mapping[str, bytes], card: str,
                 licences: str, classifier: bytes | None = None) -> Bundle:
    """Write `<released>/<draft.name>/` whole and read it back. `networks`: the draft's network names -> ONNX bytes.

    An older release of that name is replaced. Raises ModelError if names and networks do not match.
    """
    if networks.keys() != draft.networks.keys():
        raise ModelError(f"bundle {draft.name}: networks given {sorted(networks)}, described {sorted(draft.networks)}")
    texts = {CARD: card.encode(), LICENCES: licences.encode()}
    if classifier is not None:
        texts[CLASSIFIER] = classifier
    described = draft.model_dump(exclude={"networks"})
    entries = {key: NetworkEntry(**entry.model_dump(), sha256=_digest(networks[key]))
               for key, entry in draft.networks.items()}
    index = BundleIndex(**described, networks=entries, files={name: _digest(text) for name, text in texts.items()})
    released.mkdir(parents=True, exist_ok=True)
    with whole_folder(released / draft.name) as folder:
        for key, entry in entries.items():
            (folder / entry.file).write_bytes(networks[key])
        for name, text in texts.items():
            (folder / name).write_bytes(text)
        (folder / INDEX).write_text(index.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return load_bundle(released / draft.name)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _verify(path: Path, digest: str) -> None:
    if not path.is_file():
        raise ModelError(f"bundle {path.parent.name}: {path.name} is missing")
    got = sha256_of(path)
    if got != digest:
        raise ModelError(f"bundle {path.parent.name}: {path.name} is damaged, sha256 {got[:12]}, wanted {digest[:12]}")

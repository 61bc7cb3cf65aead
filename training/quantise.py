"""Stage: an exported network learns between which values its tensors lie, so that it can multiply in 8-bit integers.

A step of 8 bits must serve all channels of a tensor. Therefore each channel is first scaled to reach as far as the
others, and the weights that read it back: the network says the same as before (Meller et al. 2019, Same, Same But
Different; Nagel et al. 2019, Data-Free Quantization). What norms read stays float32.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import track

from sacroleak.core.config import load_config
from sacroleak.core.errors import ModelError
from sacroleak.core.whole import write_whole
from sacroleak.models.architecture import ANATOMY_CHANNELS
from sacroleak.models.int8 import RANGES, Ranges
from sacroleak.models.runtime import OpenVinoNetwork
from sacroleak.training.export import LARGEST_DIFFERENCE, write_facts
from sacroleak.training.manifests import anatomies_of
from sacroleak.training.sampling import SyntheticPatches
from sacroleak.training.train_segmenter import TrainConfig

Array = npt.NDArray[np.float32]
SCALED_BY = {"InstanceNormalization": 2, "ConvTranspose": 1}
"""Operations whose weights scale the channels they make, and how many weights those are: gain and shift; no bias."""
SMALLEST_REACH = 1e-3
"""A channel that hardly ever says anything is not blown up to say more."""


class QuantiseConfig(BaseModel):
    """`configs/quantise.yaml`. `networks`: which are changed; others stay as they are. `tails`: shares of a tensor's
    values left beyond each end of its range, of which the best is taken; `channel_tails`: of a channel's, beyond its
    reach, likewise. `most_changed`: share of voxels that may change their structure.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    networks: tuple[str, ...]
    samples: int = Field(ge=2)
    tried: int = Field(ge=1)
    seed: int
    tails: tuple[float, ...] = Field(min_length=1)
    channel_tails: tuple[float, ...] = Field(min_length=1)
    most_changed: float = Field(gt=0, le=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """An ONNX file, how much its probabilities differ in 8 bits in the mean, and the share of voxels whose structure
    changes.
    """

    model: bytes = b""
    differs: float
    changed: float


def main(config: QuantiseConfig, train: TrainConfig, *, network: Path, files: list[Path], out: Path) -> Path:
    """Write `out` (ONNX): `network` with its channels scaled and the ranges of its tensors; and `<out>.json`, the facts
    of `network` with the share of voxels that integers change. Both as they are if it is none of the config's networks.

    It is shown samples made as in training, of the anatomies in `files`, and tried on others, by which tails are
    chosen. Raises ModelError if it is of another shape, or if scaling or integers change too much.
    """
    facts = json.loads(network.with_suffix(".json").read_text())
    if train.network.name not in config.networks:
        return _written(out, network.read_bytes(), facts)
    samples = SyntheticPatches(files, train.network, seed=config.seed, start=0, wild_share=train.wild_share)
    count = config.samples + config.tried
    shown = [channels.float().numpy() for channels, *_ in track(islice(samples, count), network.stem, total=count)]
    tiles, others = shown[:config.samples], shown[config.samples:]
    exact = [OpenVinoNetwork(network, threads=1)(channels) for channels in others]
    best = _Candidate(differs=np.inf, changed=1.0)
    with TemporaryDirectory() as folder:
        for model in _candidates(onnx.load(network), tiles, config):
            path = Path(folder) / out.name
            path.write_bytes(model)
            tried = _tried(path, others, exact)
            best = min(best, replace(tried, model=model), key=lambda candidate: candidate.differs)
    if best.changed > config.most_changed:
        raise ModelError(f"{out.name}: in 8 bits {best.changed:.2%} of voxels change their structure, allowed "
                         f"{config.most_changed:.2%}")
    return _written(out, best.model, facts | {"int8_changes": best.changed})


def _written(out: Path, model: bytes, facts: Mapping[str, Any]) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, model)
    write_facts(out, facts)
    return out


def scale_channels(model: onnx.ModelProto, reach: Mapping[str, Array]) -> None:
    """Divide each channel of the tensors in `reach` by how far it goes there, (channels,), and multiply by as much what
    reads it: in place, and the network says the same. Raises ModelError for a tensor that is scaled nowhere.
    """
    stored = {item.name: item for item in model.graph.initializer}
    weights = {name: numpy_helper.to_array(item).copy() for name, item in stored.items()}
    for name, far in reach.items():
        for written in _written_by(model, name):
            by = far if weights[written].ndim == 1 else far[None, :, None, None, None]
            weights[written] /= by
        for read, axis, first in _read_by(model, name, reach):
            part = tuple(slice(first, first + len(far)) if a == axis else slice(None) for a in range(5))
            weights[read][part] *= far.reshape([-1 if a == axis else 1 for a in range(5)])
    for name, item in stored.items():
        item.CopyFrom(numpy_helper.from_array(weights[name], name))


def _tensors(model: onnx.ModelProto) -> list[str]:
    """What convolutions read, but for the scan itself."""
    return [node.output[0] for node in model.graph.node if node.op_type in {"LeakyRelu", "ConvTranspose"}]


def _written_by(model: onnx.ModelProto, name: str) -> list[str]:
    """Weights that scale the channels of a tensor: of a norm, which a rectifier passes on, or of a convolution."""
    made = {node.output[0]: node for node in model.graph.node}
    node = made[name]
    if node.op_type == "LeakyRelu":
        node = made[node.input[0]]
    if len(node.input) > 1 + SCALED_BY.get(node.op_type, -1):
        raise ModelError(f"{name}: comes from {node.op_type}, wanted a norm or an upward convolution without bias")
    return list(node.input[1:])


def _read_by(model: onnx.ModelProto, name: str, reach: Mapping[str, Array], first: int = 0,
             ) -> list[tuple[str, int, int]]:
    """(weights, axis, first channel there) of all that reads a tensor."""
    found: list[tuple[str, int, int]] = []
    for node in model.graph.node:
        if name not in node.input:
            continue
        if node.op_type == "Concat":
            before = sum(len(reach[other]) for other in node.input[:list(node.input).index(name)])
            found += _read_by(model, node.output[0], reach, first + before)
        elif node.op_type in {"Conv", "ConvTranspose"}:
            found.append((node.input[1], 1 if node.op_type == "Conv" else 0, first))
        else:
            raise ModelError(f"{name}: is read by {node.op_type}, wanted convolutions")
    return found


def _candidates(network: onnx.ModelProto, tiles: Sequence[Array], config: QuantiseConfig) -> Iterator[bytes]:
    """The network with its channels scaled and its ranges, for all tails."""
    reach = _mean_quantiles(network, tiles, [1 - tail for tail in config.channel_tails], each_channel=True)
    for number in range(len(config.channel_tails)):
        model = onnx.ModelProto()
        model.CopyFrom(network)
        far = {name: np.maximum(found[number], SMALLEST_REACH) for name, found in reach.items()}
        # All reach as far as they did in the mean: weights stay as large as they were, for a training that goes on.
        common = np.exp(np.log(np.concatenate(list(far.values()))).mean())
        scale_channels(model, {name: own / common for name, own in far.items()})
        ends = _mean_quantiles(model, tiles, [q for tail in config.tails for q in (tail, 1 - tail)])
        entry = model.metadata_props.add(key=RANGES)
        for low in range(0, 2 * len(config.tails), 2):
            ranges = {name: (float(found[low]), float(found[low + 1])) for name, found in ends.items()}
            entry.value = json.dumps(_joined(model, ranges))
            yield model.SerializeToString()


def _mean_quantiles(model: onnx.ModelProto, tiles: Sequence[Array], quantiles: Sequence[float], *,
                    each_channel: bool = False) -> dict[str, Array]:
    """(quantiles,) of each tensor in the mean of the tiles; or (quantiles, channels) of how far from 0 a channel is."""
    found: dict[str, Array] = {}
    for seen in map(_watched(model), tiles):
        for name, values in seen.items():
            own = np.quantile(np.abs(values.reshape(len(values), -1)), quantiles, axis=1) if each_channel else (
                np.quantile(values, quantiles))
            found[name] = found.get(name, np.float32(0)) + (own / len(tiles)).astype(np.float32)
    return found


def _joined(model: onnx.ModelProto, ranges: Ranges) -> Ranges:
    """The same, but tensors that are put together share one range."""
    for node in model.graph.node:
        if node.op_type == "Concat" and set(node.input) <= ranges.keys():
            lows, highs = zip(*(ranges[name] for name in node.input), strict=True)
            ranges = ranges | dict.fromkeys(node.input, (min(lows), max(highs)))
    return ranges


def _watched(model: onnx.ModelProto) -> Any:
    """A function from channels (2, i, j, k) to all tensors (channels, i, j, k) by name."""
    import openvino

    told = onnx.ModelProto()
    told.CopyFrom(model)
    names = _tensors(model)
    told.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(told.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def seen(channels: Array) -> dict[str, Array]:
        answers = compiled({"channels": channels[None]})
        return {name: answers[name][0] for name in names}

    return seen


def _tried(scaled: Path, tiles: Sequence[Array], exact: Sequence[Array]) -> _Candidate:
    """What integers change of the `exact` answers. Raises ModelError if scaling alone changes them."""
    apart = float(np.abs(OpenVinoNetwork(scaled, threads=1)(tiles[0]) - exact[0]).max())
    if apart > LARGEST_DIFFERENCE:
        raise ModelError(f"{scaled.name}: scaled channels change probabilities by {apart:.4f}, allowed "
                         f"{LARGEST_DIFFERENCE}")
    network = OpenVinoNetwork(scaled, threads=1, precision="int8")
    pairs = [(network(channels), wanted) for channels, wanted in zip(tiles, exact, strict=True)]
    differs = np.mean([np.abs(found - wanted).mean() for found, wanted in pairs])
    changed = np.mean([(found[:ANATOMY_CHANNELS].argmax(0) != wanted[:ANATOMY_CHANNELS].argmax(0)).mean()
                       for found, wanted in pairs])
    return _Candidate(differs=float(differs), changed=float(changed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/quantise.yaml"))
    parser.add_argument("--train-config", type=Path, required=True, help="how the network was trained")
    parser.add_argument("--network", type=Path, required=True, help="ONNX file of the export stage")
    parser.add_argument("--anatomies", type=Path, default=Path("artifacts/anatomies"))
    parser.add_argument("--manifest", type=Path, default=Path("data_manifests/anatomies.csv"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    main(load_config(given.config, QuantiseConfig), load_config(given.train_config, TrainConfig), network=given.network,
         files=anatomies_of("train", given.anatomies, given.manifest), out=given.out)

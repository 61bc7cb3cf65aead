"""The mean of several networks' weights as one network, exported and checked as any other.

    python -m sacroleak.training.average --config configs/train_fine.yaml --updates 25200 \\
        --out artifacts/float32/fine.onnx first.onnx second.onnx third.onnx

For networks of one line of training, each begun with the weights of the one before: the mean of where several runs
ended varies less than any of them (Izmailov et al., Averaging weights leads to wider optima, 2018, arXiv:1803.05407).
Take them as the export stage wrote them: afterwards each has channels scaled in its own way.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from sacroleak.core.config import load_config
from sacroleak.core.errors import ModelError
from sacroleak.models.architecture import build_network, set_weights, weights_in
from sacroleak.models.int8 import RANGES
from sacroleak.training.export import exported
from sacroleak.training.train_segmenter import TrainConfig


def main(config: TrainConfig, parts: Sequence[Path], *, updates: int, out: Path) -> Path:
    """Write `out` (ONNX) and `<out>.json`. Raises ModelError if the networks are not of one shape, that of `config`, or
    have channels scaled in different ways.
    """
    if len({text for text in map(_ranges_text, parts) if text}) > 1:
        raise ModelError("channels are scaled in different ways: give the networks as the export stage wrote them")
    weights = [weights_in(path) for path in parts]
    network = build_network(config.network.filters)
    for path, own in zip(parts, weights, strict=True):
        try:
            set_weights(network, own)
        except ValueError as error:
            raise ModelError(f"{path.name}: is not of this network's shape (first difference: {error})") from error
    means = {name: np.stack([own[name] for own in weights]).mean(axis=0) for name, _ in network.named_parameters()}
    set_weights(network, means)
    return exported(network, config, updates=updates, out=out)


def _ranges_text(path: Path) -> str:
    """What the file says of its tensors' ranges, which come with the scale of its channels."""
    return next((item.value for item in onnx.load(path).metadata_props if item.key == RANGES), "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--updates", type=int, required=True, help="how long the last of them was trained in all")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("networks", type=Path, nargs="+", help="exported networks (ONNX)")
    given = parser.parse_args()
    main(load_config(given.config, TrainConfig), given.networks, updates=given.updates, out=given.out)

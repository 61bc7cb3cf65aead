"""Convolutions multiply in integers where the file says between which values their inputs lie, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import pytest
from openvino import opset13 as ops

from sacroleak.core.errors import ModelError
from sacroleak.models.int8 import RANGES, to_int8

Array = npt.NDArray[np.float32]
WEIGHTS = np.random.default_rng(0).normal(size=(2, 4, 4, 3, 3, 3)).astype(np.float32)


def convolved(image: Any, weights: Array, name: str) -> Any:
    made = ops.convolution(image, ops.constant(weights), [1] * 3, [1] * 3, [1] * 3, [1] * 3).output(0)
    made.set_names({name})
    return made


def network(said: object = None) -> Any:
    """Two convolutions one after the other, which make the tensors `first` and `second`, and what is said of these."""
    image = ops.parameter([1, 4, -1, -1, -1], np.float32)
    built = openvino.Model([convolved(convolved(image, WEIGHTS[0], "first"), WEIGHTS[1], "second")], [image], "two")
    if said is not None:
        built.set_rt_info(said if isinstance(said, str) else json.dumps(said), ["framework", RANGES])
    return built


def answer(built: Any, channels: Array) -> Array:
    compiled = openvino.Core().compile_model(built, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result: Array = compiled([channels])[0]
    return result


def nearly(found: Array, exact: Array) -> bool:
    """Rounded, and in the mean by little; single products overflow on processors that are not meant for it."""
    return bool(0 < np.abs(found - exact).mean() < 0.02 * np.abs(exact).mean())


def rounded(built: Any) -> int:
    return sum(node.get_type_name() == "FakeQuantize" for node in built.get_ops())


@pytest.fixture(scope="module")
def channels() -> Array:
    return np.random.default_rng(1).uniform(-1, 1, size=(1, 4, 16, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def reach(channels: Array) -> float:
    """How far from 0 the tensor `first` goes."""
    image = ops.parameter([1, 4, -1, -1, -1], np.float32)
    alone = openvino.Model([convolved(image, WEIGHTS[0], "first")], [image], "one")
    return float(np.abs(answer(alone, channels)).max())


def test_a_network_of_which_nothing_is_said_is_left_as_it_is(channels: Array) -> None:
    silent = network()
    assert not to_int8(silent)
    assert rounded(silent) == 0
    assert np.array_equal(answer(silent, channels), answer(network(), channels))


def test_a_convolution_whose_input_has_a_range_multiplies_in_steps(channels: Array, reach: float) -> None:
    known = network({"first": [-reach, reach]})
    assert to_int8(known)
    assert rounded(known) == 2, "input and weights of the second; of what the first reads nothing is said"
    exact, found = answer(network(), channels), answer(known, channels)
    assert nearly(found, exact)


def test_what_lies_beyond_a_range_is_cut_off(channels: Array, reach: float) -> None:
    narrow = network({"first": [-reach / 100, reach / 100]})
    assert to_int8(narrow)
    assert np.abs(answer(narrow, channels)).max() < 0.1 * np.abs(answer(network(), channels)).max()


@pytest.mark.parametrize(("said", "why"), [
    ({"third": [0, 1]}, "no tensor third"), ("[1, 2]", r"wanted \[low, high\] of each tensor"),
    ("nothing", r"wanted \[low, high\] of each tensor")])
def test_what_cannot_be_used_is_refused(said: object, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        to_int8(network(said))


def test_a_tensor_put_together_of_parts_is_known_if_all_of_them_are(channels: Array) -> None:
    def joined(said: dict[str, list[float]]) -> Any:
        image = ops.parameter([1, 4, -1, -1, -1], np.float32)
        parts = [ops.relu(image).output(0) for _ in range(2)]
        for part, name in zip(parts, ("one", "two"), strict=True):
            part.set_names({name})
        whole = convolved(ops.concat(parts, 1), np.concatenate(list(WEIGHTS), axis=1), "whole")
        built = openvino.Model([whole], [image], "joined")
        built.set_rt_info(json.dumps(said), ["framework", RANGES])
        return built

    assert not to_int8(joined({"one": [0, 1]}))
    both = joined({"one": [0, 1], "two": [0, 1]})
    assert to_int8(both)
    exact = answer(joined({}), channels)
    assert nearly(answer(both, channels), exact)


def test_ranges_are_read_from_the_metadata_of_an_onnx_file(tmp_path: Path, channels: Array, reach: float) -> None:
    onnx = pytest.importorskip("onnx")
    helper, shape = onnx.helper, [1, 4, "i", "j", "k"]
    nodes = [helper.make_node("Conv", [image, weights], [made], pads=[1] * 6)
             for image, weights, made in (("channels", "w0", "first"), ("first", "w1", "second"))]
    graph = helper.make_graph(nodes, "two", [helper.make_tensor_value_info("channels", 1, shape)],
                              [helper.make_tensor_value_info("second", 1, shape)],
                              [onnx.numpy_helper.from_array(values, f"w{n}") for n, values in enumerate(WEIGHTS)])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made.metadata_props.add(key=RANGES, value=json.dumps({"first": [-reach, reach]}))
    (tmp_path / "two.onnx").write_bytes(made.SerializeToString())
    read = openvino.Core().read_model(tmp_path / "two.onnx")
    assert to_int8(read)
    assert rounded(read) == 2
    assert np.array_equal(answer(read, channels), answer(with_ranges(reach), channels))


def with_ranges(reach: float) -> Any:
    known = network({"first": [-reach, reach]})
    to_int8(known)
    return known

"""Networks that multiply in 8-bit integers: their file says between which values the inputs of convolutions lie.

The weights in the file stay float32, and are used so where the processor is not quicker with integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from sacroleak.core.errors import ModelError

RANGES = "sacroleak.ranges"
"""Key in the metadata of an ONNX file whose value is JSON: name of a tensor -> [low, high]."""
VALUES_LEVELS, WEIGHTS_LEVELS = 256, 255
"""Steps of a tensor, and of weights, which lie symmetrically about 0."""
CONVOLUTIONS = frozenset({"Convolution", "ConvolutionBackpropData"})
Ranges = dict[str, tuple[float, float]]


def ranges_of(model: Any) -> Ranges:
    """What the file of an OpenVINO model says of its tensors; nothing if it says nothing. Raises ModelError if it is
    nothing that can be used.
    """
    if not model.has_rt_info(["framework", RANGES]):
        return {}
    try:
        return TypeAdapter(Ranges).validate_json(model.get_rt_info(["framework", RANGES]).value)
    except ValidationError as error:
        raise ModelError(f"{RANGES}: wanted [low, high] of each tensor") from error


def to_int8(model: Any) -> bool:
    """Let the convolutions whose inputs have known ranges multiply in int8, in place; False if there are none.

    All else stays as it is. Tensors and weights get a step `FakeQuantize`, which the runtime takes into the
    convolutions: the way of OpenVINO's own compression tools. Raises ModelError if a range is of no tensor.
    """
    ranges = ranges_of(model)
    tensors = {name: output for node in model.get_ordered_ops() for output in node.outputs()
               for name in output.get_names() if name in ranges}
    for name in ranges:
        if name not in tensors:
            raise ModelError(f"{RANGES}: no tensor {name}")
    convolutions = [node for node in model.get_ordered_ops()
                    if node.get_type_name() in CONVOLUTIONS and _known(node.input_value(0), ranges)]
    for name, output in tensors.items():
        low, high = ranges[name]
        users = list(output.get_target_inputs())
        steps = in_steps(output, np.float32(low), np.float32(high), VALUES_LEVELS)
        for user in users:
            user.replace_source_output(steps)
    for node in convolutions:
        weights = node.input_value(1)
        values: npt.NDArray[np.float32] = weights.get_node().get_data()
        own = 0 if node.get_type_name() == "Convolution" else 1  # the axis of the channels it makes
        most = np.abs(values).max(axis=tuple(a for a in range(values.ndim) if a != own), keepdims=True)
        node.input(1).replace_source_output(in_steps(weights, -most, most, WEIGHTS_LEVELS))
    return bool(convolutions)


def _known(output: Any, ranges: Ranges) -> bool:
    """Whether a tensor has a range, or is put together from such."""
    if output.get_names() & ranges.keys():
        return True
    node = output.get_node()
    return bool(node.get_type_name() == "Concat" and all(_known(part, ranges) for part in node.input_values()))


def in_steps(output: Any, low: npt.ArrayLike, high: npt.ArrayLike, levels: int) -> Any:
    """A tensor rounded to so many steps from `low` to `high`; what multiplies two of them does so in int8."""
    from openvino import opset13 as ops  # with the runtime: only when a scan is scored

    ends = [ops.constant(np.asarray(end, dtype=np.float32)) for end in (low, high, low, high)]
    return ops.fake_quantize(output, *ends, levels).output(0)

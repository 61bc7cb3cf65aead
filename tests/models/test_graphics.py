"""Networks as a graphics card runs them; here torch runs them on the CPU, because tests must not need a card."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sacroleak.core.errors import ModelError
from sacroleak.core.geometry import Geometry
from sacroleak.core.volume import Volume
from sacroleak.models import networks
from sacroleak.models.architecture import filters_of, weights_in
from sacroleak.models.bundle import Bundle, default_bundle
from sacroleak.models.effort import Effort
from sacroleak.models.graphics import Pooled, TorchNetwork, require_card
from sacroleak.models.locate import locate_sacrum
from sacroleak.models.resample import Field
from sacroleak.models.runtime import OpenVinoNetwork, each

SIDES = (32, 48, 16)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return default_bundle()


@pytest.fixture
def channels() -> Field:
    return np.random.default_rng(4).uniform(-1, 1, (3, 2, *SIDES)).astype(np.float32)


def marked(channels: Field) -> Field:
    """Answers that tell what they answer: the mean of the first channel everywhere."""
    means = channels[:, :1].mean(axis=(2, 3, 4), keepdims=True)
    return np.broadcast_to(means, (len(channels), 8, *channels.shape[2:])).astype(np.float32)


@pytest.mark.parametrize("name", ["coarse", "near"])
def test_torch_says_what_the_runtime_of_the_cpu_says(name: str, bundle: Bundle, channels: Field) -> None:
    path = bundle.network_path(name)
    answers = TorchNetwork(path, device="cpu", precision="f32")(channels)
    wanted = np.stack([OpenVinoNetwork(path, threads=1)(one) for one in channels])
    assert answers.shape == wanted.shape
    assert np.abs(answers - wanted).max() < 2e-3


def test_bfloat16_differs_little(bundle: Bundle, channels: Field) -> None:
    path = bundle.network_path("near")
    exact, quick = (TorchNetwork(path, device="cpu", precision=p)(channels) for p in ("f32", "bf16"))
    assert 0 < np.abs(exact - quick).mean() < 0.01


def test_the_shape_is_read_off_the_weights(bundle: Bundle) -> None:
    assert filters_of(weights_in(bundle.network_path("near"))) == (8, 16, 32, 64)


def test_weights_of_another_network_are_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_in(bundle.network_path("near"))
    weights.pop("bottleneck.conv2.conv.weight")
    monkeypatch.setattr("sacroleak.models.graphics.weights_in", lambda _path: weights)
    with pytest.raises(ModelError, match=r"near\.onnx: not a network of this version's shape"):
        TorchNetwork(bundle.network_path("near"), device="cpu", precision="f32")


def test_what_is_too_much_for_the_card_together_is_answered_in_turn(
    bundle: Bundle, channels: Field, monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = TorchNetwork(bundle.network_path("coarse"), device="cpu", precision="f32")
    wanted, whole = network(channels), network._network
    asked: list[int] = []

    def small_card(inputs: torch.Tensor, most: int = 1) -> torch.Tensor:
        asked.append(len(inputs))
        if len(inputs) > most:
            raise torch.OutOfMemoryError
        answer: torch.Tensor = whole(inputs)
        return answer

    monkeypatch.setattr(network, "_network", small_card)
    assert np.abs(network(channels) - wanted).max() < 1e-5
    assert asked == [3, 1, 2, 1, 1]
    monkeypatch.setattr(network, "_network", lambda inputs: small_card(inputs, most=0))
    with pytest.raises(MemoryError):
        network(channels)


def test_calls_from_several_threads_are_answered_together_each_with_its_own() -> None:
    sizes: list[int] = []
    begin = Event()

    def together(channels: Field) -> Field:
        begin.wait(10)
        sizes.append(len(channels))
        return marked(channels)

    network, barrier = Pooled(together, most=8, wait_s=0.5), Barrier(5)
    inputs = [np.full((2, 4, 4, 4), n, dtype=np.float32) for n in range(5)]

    def ask(channels: Field) -> float:
        barrier.wait(10)
        return float(network(channels).mean())

    with ThreadPoolExecutor(5) as threads:
        asked = [threads.submit(ask, channels) for channels in inputs]
        begin.set()
        assert [one.result(10) for one in asked] == [0, 1, 2, 3, 4]
    assert sum(sizes) == 5
    assert max(sizes) > 1


def test_many_are_answered_in_order_and_only_so_many_are_asked_for_ahead() -> None:
    taken = 0

    def inputs() -> Iterator[Field]:
        nonlocal taken
        for n in range(20):
            taken += 1
            side = 4 if n % 3 else 6  # those of other sides are answered on their own
            yield np.full((2, side, side, side), n, dtype=np.float32)

    answers = each(Pooled(marked, most=2), inputs())
    first = next(answers)
    assert taken == 4
    assert [float(a.mean()) for a in (first, *answers)] == list(range(20))


def test_a_network_that_answers_one_at_a_time_is_asked_so() -> None:
    answers = each(lambda channels: marked(channels[None])[0], (np.full((2, 4, 4, 4), n) for n in (3, 5)))
    assert [float(answer.mean()) for answer in answers] == [3, 5]


def test_an_error_reaches_those_who_asked_and_nobody_after_them() -> None:
    def together(channels: Field) -> Field:
        if channels.max() > 1:
            raise ValueError("too bright")
        return marked(channels)

    network = Pooled(together)
    with pytest.raises(ValueError, match="too bright"):
        network(np.full((2, 4, 4, 4), 2, dtype=np.float32))
    assert network(np.ones((2, 4, 4, 4), dtype=np.float32)).mean() == 1


def test_a_card_segments_as_the_cpu_does(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "TorchNetwork",
                        lambda path, *, device, precision: TorchNetwork(path, device="cpu", precision="f32"))
    on_card = networks.load_segmenter(bundle, threads=1, device="cuda")
    on_cpu = networks.load_segmenter(bundle, threads=1, effort=Effort.CAREFUL)
    hu = np.full((40, 30, 30), -1000, dtype=np.int16)
    hu[5:35, 5:25] = 40
    hu[12:28, 12:22, 5:25] = 400
    ct = Volume(hu=hu, geometry=Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=10.0, shape=hu.shape))
    places = [locate_sacrum(ct, segmenter._coarse, segmenter._coarse_mm) for segmenter in (on_card, on_cpu)]
    assert np.abs(places[0] - places[1]).max() < 1.0


def test_a_card_that_is_not_there_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"cuda:99: there is no such graphics card.* leave --device out"):
        require_card("cuda:99")
    with pytest.raises(ModelError, match="give cpu, cuda or cuda:N"):
        require_card("graphics")


def test_without_torch_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(ModelError, match=r"install sacroleak\[gpu\]"):
        require_card("cuda")


def test_a_card_that_is_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(device_count=lambda: 2))
    require_card("cuda")
    require_card("cuda:1")
    with pytest.raises(ModelError, match="no such graphics card"):
        require_card("cuda:2")

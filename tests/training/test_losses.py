"""What the network is asked for: nearer to the truth costs less, and what is absent costs nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sacroleak.models.architecture import ANATOMY_CHANNELS, OUTPUT_CHANNELS
from sacroleak.models.intensity import erase, to_channels
from sacroleak.training.losses import DARK_SHARE, brightness, segmentation_loss

SHAPE = (8, 8, 8)


def truth(*, cement: bool = True) -> tuple[Tensor, Tensor]:
    """Anatomy with every structure, and cement and metal, of a batch of one."""
    anatomy = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    for label in range(1, ANATOMY_CHANNELS):
        anatomy[0, label] = label
    dense = torch.zeros(1, 2, *SHAPE, dtype=torch.uint8)
    if cement:
        dense[0, 0, 1, :4] = 1
    return anatomy, dense


def seen(hu: np.ndarray, erased: np.ndarray | None = None) -> Tensor:
    """What the network is shown of these HU; a batch of one."""
    channels = to_channels(hu)
    if erased is not None:
        erase(channels, erased)
    return torch.from_numpy(channels)[None]


BRIGHT = seen(np.full(SHAPE, 1500.0, dtype=np.float32))


def logits_of(anatomy: Tensor, dense: Tensor, certainty: float = 12.0) -> Tensor:
    """What a network says that is sure of these labels."""
    out = torch.zeros(1, OUTPUT_CHANNELS, *SHAPE)
    for label in range(ANATOMY_CHANNELS):
        out[:, label] = torch.where(anatomy == label, certainty, -certainty)
    out[:, ANATOMY_CHANNELS:] = torch.where(dense > 0, certainty, -certainty)
    return out


def test_a_right_answer_costs_next_to_nothing() -> None:
    assert segmentation_loss(logits_of(*truth()), BRIGHT, *truth()).item() < 1e-2


def test_absent_structures_cost_nothing() -> None:
    empty = torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.zeros(1, 2, *SHAPE, dtype=torch.uint8)
    assert segmentation_loss(logits_of(*empty), BRIGHT, *empty).item() < 1e-2


@pytest.mark.parametrize("label", range(1, ANATOMY_CHANNELS))
def test_each_structure_counts(label: int) -> None:
    anatomy, dense = truth()
    wrong = torch.where(anatomy == label, 0, anatomy)
    assert segmentation_loss(logits_of(wrong, dense), BRIGHT, anatomy, dense).item() > 0.15


def test_missed_cement_costs_more_than_cement_too_much() -> None:
    anatomy, dense = truth()
    less, more = dense.clone(), dense.clone()
    less[0, 0, 1, 2:4] = 0
    more[0, 0, 1, 4:6] = 1
    assert (segmentation_loss(logits_of(anatomy, less), BRIGHT, anatomy, dense)
            > 1.5 * segmentation_loss(logits_of(anatomy, more), BRIGHT, anatomy, dense))


def test_surer_of_the_truth_is_cheaper() -> None:
    costs = [segmentation_loss(logits_of(*truth(), certainty=c), BRIGHT, *truth()).item() for c in (0.0, 1.0, 3.0, 8.0)]
    assert costs == sorted(costs, reverse=True)


def test_the_gradient_leads_downhill() -> None:
    anatomy, dense = truth()
    logits = torch.zeros(1, OUTPUT_CHANNELS, *SHAPE, requires_grad=True)
    before = segmentation_loss(logits, BRIGHT, anatomy, dense)
    before.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert segmentation_loss(logits.detach() - 5 * logits.grad, BRIGHT, anatomy, dense) < before


def test_half_precision_logits_are_summed_in_full() -> None:
    loss = segmentation_loss(logits_of(*truth(), certainty=2.0).bfloat16(), BRIGHT, *truth())
    assert loss.dtype == torch.float32


def test_what_is_bright_counts_and_what_is_dark_hardly() -> None:
    hu = np.array([[[-1000.0, 340.0, 850.0, 1350.0, 3000.0]]], dtype=np.float32)
    shares = brightness(torch.from_numpy(to_channels(hu))[None])
    assert shares.flatten().tolist() == pytest.approx([DARK_SHARE, DARK_SHARE, (1 + DARK_SHARE) / 2, 1, 1], abs=1e-5)
    anatomy, dense = truth(cement=False)
    wrong = dense.clone()
    wrong[0, 0, 6] = 1
    hu = np.full(SHAPE, 100.0, dtype=np.float32)
    dark = segmentation_loss(logits_of(anatomy, wrong), seen(hu), anatomy, dense)
    hu[6] = 1500
    assert segmentation_loss(logits_of(anatomy, wrong), seen(hu), anatomy, dense) > 2 * dark


def test_what_is_hidden_is_asked_for_its_anatomy_and_not_for_cement() -> None:
    anatomy, dense = truth()
    there = np.zeros(SHAPE, dtype=bool)
    there[:2] = True
    behind = seen(np.full(SHAPE, 1500.0, dtype=np.float32), there)
    without = torch.zeros_like(dense)
    assert segmentation_loss(logits_of(anatomy, without), behind, anatomy, dense).item() < 1e-2
    assert segmentation_loss(logits_of(anatomy, without), BRIGHT, anatomy, dense).item() > 0.15
    wrong = torch.where(anatomy == 1, 0, anatomy)
    assert (segmentation_loss(logits_of(wrong, dense), behind, anatomy, dense)
            > 1.5 * segmentation_loss(logits_of(wrong, dense), BRIGHT, anatomy, dense))


def test_little_hidden_outside_bone_counts_like_much_in_it() -> None:
    anatomy, dense = torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.zeros(1, 2, *SHAPE, dtype=torch.uint8)
    anatomy[0, :4] = 1
    there = np.zeros(SHAPE, dtype=bool)
    there[:4], there[4, :2] = True, True
    shown = seen(np.full(SHAPE, 100.0, dtype=np.float32), there)
    inside, outside = (logits_of(anatomy, dense) for _ in range(2))
    inside[0, :, 3, :2], outside[0, :, 4, :2] = 0.0, 0.0
    cost_inside, cost_outside = (segmentation_loss(said, shown, anatomy, dense) for said in (inside, outside))
    assert cost_outside > cost_inside, "although the sacrum weighs twice what background weighs"


def test_a_compiled_step_asks_for_the_same() -> None:
    anatomy, dense = truth()
    dense[0, 0, 0, :4] = 1
    there = np.zeros(SHAPE, dtype=bool)
    there[:, 4:] = True
    shown = seen(np.full(SHAPE, 1500.0, dtype=np.float32), there)
    said = logits_of(*truth(), certainty=1.0)
    compiled = torch.compile(segmentation_loss, backend="eager")
    assert compiled(said, shown, anatomy, dense).item() == pytest.approx(
        segmentation_loss(said, shown, anatomy, dense).item(), rel=1e-5)


def test_bone_called_where_cement_leaked_costs_far_more_only_of_the_network_for_that() -> None:
    anatomy, dense = truth()
    dense[0, 0, 0, 6:] = 1
    wrong = anatomy.clone()
    wrong[0, 0, 6:] = 1
    plain, asked = (segmentation_loss(logits_of(wrong, dense, certainty=3.0), BRIGHT, anatomy, dense, under=under)
                    - segmentation_loss(logits_of(anatomy, dense, certainty=3.0), BRIGHT, anatomy, dense, under=under)
                    for under in (False, True))
    assert asked > 2 * plain > 0

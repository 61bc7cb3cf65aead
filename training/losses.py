"""What the network is asked for: every structure counts, small ones too."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sacroleak.core.structures import Structure
from sacroleak.models.architecture import ANATOMY_CHANNELS
from sacroleak.models.cement import FAINTEST_HU
from sacroleak.models.intensity import DENSE_WINDOW_HU

CLASS_WEIGHTS = (0.6, 1.2, 2.0, 0.8, 0.8, 1.0)
"""Cross-entropy weights, background to L5; the canal is small and decides the epidural site."""
POSITIVE_WEIGHTS = (2.0, 1.0)
"""Of cement and metal: a missed thin leak costs more than a thick one drawn too thick."""
UNDER_CEMENT_WEIGHT = 8.0
"""What lies under hidden cement, bone or canal or neither, decides whether it leaked, and can be had only from what is
around it. Cement that is seen looks like bone: there the answer is asked for with more weight only of the network that
is for that."""
MOST_OUTSIDE, MOST_LEAKED = 4.0, 6.0
"""What is hidden, or seen cement, outside bone counts as much in all as what is in it, but no voxel more than so many
times."""
BACKGROUND, CANAL = int(Structure.BACKGROUND), int(Structure.SACRAL_CANAL)
"""Plain numbers: to a compiled step a tensor is never equal to a member of an enumeration."""
LEAK_WEIGHT, LEAK_VOXELS = 0.2, 50.0
"""A leak is a few hundred voxels among hundreds of thousands: besides, its mean counts as much whatever its size, less
for one of fewer voxels than this."""
DENSE_WEIGHT = 2.0
FULL_HU, DARK_SHARE = 1350.0, 0.02
"""Only what is bright can be cement or metal: a voxel counts in full from FULL_HU on, by DARK_SHARE up to FAINTEST_HU,
below which scoring calls nothing cement. Otherwise what is easy, being dark, outnumbers the rest by twenty to one."""


def brightness(channels: Tensor) -> Tensor:
    """How much each voxel counts for cement and metal: channels (n, 2, i, j, k) to DARK_SHARE..1, (n, i, j, k)."""
    low, high = DENSE_WINDOW_HU
    hu = (channels[:, 1].float() + 1) * ((high - low) / 2) + low
    return DARK_SHARE + (1 - DARK_SHARE) * ((hu - FAINTEST_HU) / (FULL_HU - FAINTEST_HU)).clamp(0, 1)


def hidden(channels: Tensor) -> Tensor:
    """Where channels (n, 2, i, j, k) carry the mark of `intensity.erase`; (n, i, j, k)."""
    return (channels[:, 0] <= -1) & (channels[:, 1] >= 1)


def segmentation_loss(logits: Tensor, channels: Tensor, anatomy: Tensor, dense: Tensor, *,
                      under: bool = False) -> Tensor:
    """Logits (n, 8, i, j, k), channels (n, 2, i, j, k), anatomy (n, i, j, k), cement and metal (n, 2, i, j, k); a
    scalar. Hidden voxels are asked for their anatomy, with more weight, and not for cement or metal. `under`: so are
    those of cement, instead of the hidden ones.
    """
    logits, dense, anatomy = logits.float(), dense.float(), anatomy.long()
    behind = hidden(channels)
    weights = torch.tensor(CLASS_WEIGHTS, device=logits.device)
    outside = (anatomy == BACKGROUND) | (anatomy == CANAL)
    asked = dense[:, 0] > 0 if under else behind
    ratio = (asked & ~outside).sum() / (asked & outside).sum().clamp(min=1)
    share = torch.where(outside, ratio.clamp(1, MOST_LEAKED if under else MOST_OUTSIDE), 1)
    counts = weights[anatomy] * (1 + UNDER_CEMENT_WEIGHT * asked * share)
    surprise = F.cross_entropy(logits[:, :ANATOMY_CHANNELS], anatomy, reduction="none")
    entropy = (counts * surprise).sum() / counts.sum()
    probability = torch.softmax(logits[:, :ANATOMY_CHANNELS], dim=1)
    truth = F.one_hot(anatomy, ANATOMY_CHANNELS).movedim(-1, 1).to(probability.dtype)
    bones = _dice_loss(probability[:, 1:], truth[:, 1:])
    positive = torch.tensor(POSITIVE_WEIGHTS, device=logits.device).view(1, 2, 1, 1, 1)
    voxels = F.binary_cross_entropy_with_logits(logits[:, ANATOMY_CHANNELS:], dense, pos_weight=positive,
                                                reduction="none")
    seen = (~behind).float()
    leaked = dense[:, 0] * outside * seen
    missed = ((voxels[:, 0] * leaked).sum((1, 2, 3)) / (leaked.sum((1, 2, 3)) + LEAK_VOXELS)).mean()
    solid = _dice_loss(torch.sigmoid(logits[:, ANATOMY_CHANNELS:]) * seen[:, None], dense * seen[:, None])
    bright = brightness(channels) * seen
    doubt = (voxels.sum(1) * bright).sum() / bright.sum().clamp(min=1)
    return entropy + bones + DENSE_WEIGHT * doubt + 0.5 * solid + LEAK_WEIGHT * missed


def _dice_loss(probability: Tensor, truth: Tensor) -> Tensor:
    """Mean of 1 - Dice over the structures that are there; (n, c, i, j, k) each. Absent ones do not count."""
    axes = (2, 3, 4)
    overlap = (probability * truth).sum(axes)
    size = (probability + truth).sum(axes)
    there = (truth.sum(axes) > 0).float()
    dice = (2 * overlap + 1) / (size + 1)
    return ((1 - dice) * there).sum() / there.sum().clamp(min=1)

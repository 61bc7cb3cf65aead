"""The quicker network is the same network."""

from __future__ import annotations

import torch
from torch import nn

from sacroleak.models.architecture import build_network
from sacroleak.training.plain_norm import LAYOUT, PlainNorm, quick_on_cpu


def test_norm_answers_as_torch_does() -> None:
    torch.manual_seed(0)
    norm = nn.InstanceNorm3d(3, affine=True)
    norm.weight.data, norm.bias.data = torch.randn(3), torch.randn(3)
    values = 5 + 3 * torch.randn(2, 3, 4, 5, 6)
    torch.testing.assert_close(PlainNorm(norm)(values), norm(values))


def test_quick_network_has_the_same_names_answers_and_gradients() -> None:
    torch.manual_seed(0)
    plain, quick = build_network([4, 8, 8]), build_network([4, 8, 8])
    quick.load_state_dict(plain.state_dict())
    assert not any(isinstance(m, nn.InstanceNorm3d) for m in quick_on_cpu(quick).modules())
    assert list(quick.state_dict()) == list(plain.state_dict())
    channels = torch.randn(2, 2, 16, 16, 16)
    answers = [plain(channels), quick(channels.contiguous(memory_format=LAYOUT))]
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-4)
    for answer in answers:
        answer.square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), quick.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5, msg=name)

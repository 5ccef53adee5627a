"""What folding has in common: kernels and norms in double precision, whatever the convolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paddle2torch.architectures.folding import (
    Foldable,
    Replaced,
    dilate_kernel,
    fold,
    folded_conv,
    fuse_conv_norm,
    fuse_norm,
    identity_kernel,
    pad_kernel,
)

CONVOLUTIONS = {
    "grouped, stride 2": nn.Conv2d(8, 8, 3, 2, 1, groups=4, bias=False),
    "flat, with a bias": nn.Conv2d(8, 6, (1, 3), padding=(0, 1)),
    "even, one side padded": nn.Conv2d(8, 6, 2, padding=1, bias=False),
    "dilated": nn.Conv2d(8, 6, 3, padding=2, dilation=2),
    "transposed": nn.ConvTranspose2d(8, 6, 2, 2),
}


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """In evaluation mode; no two channels alike, one with a variance near the epsilon."""
    norm = nn.BatchNorm2d(channels).eval()
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.normal_()
        norm.running_var.uniform_(0.5, 1.5)
        norm.running_var[1] = 1e-4
    return norm


def apart(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the largest magnitude."""
    assert one.shape == other.shape
    return float((one - other).abs().max() / one.abs().max())


@pytest.mark.parametrize("conv", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_norm_goes_into_the_convolution_before_it(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    torch.manual_seed(0)
    norm, x = batch_norm(conv.out_channels), torch.randn(2, 8, 9, 11)
    with torch.no_grad():
        single = folded_conv(conv, *fuse_conv_norm(conv, norm))(x)
        both = nn.Sequential(conv, norm).double()
        double = folded_conv(conv, *fuse_conv_norm(conv, norm))(x.double())
        assert apart(both(x.double()), double) < 1e-14
        both.float()
        assert apart(both(x), single) < 1e-6


def test_a_kernel_is_rounded_once() -> None:
    """In single precision throughout it would differ from the exact one in half of the entries."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(8, 8, 3, bias=False), batch_norm(8)
    weight, bias = fuse_conv_norm(conv, norm)
    assert weight.dtype == bias.dtype == torch.float64
    exact = (
        conv.weight.double()
        * (norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt())[:, None, None, None]
    )
    assert torch.equal(folded_conv(nn.Conv2d(8, 8, 3), weight, bias).weight, exact.float())


def test_a_folded_convolution_keeps_what_it_is_like() -> None:
    like = nn.Conv2d(4, 4, (5, 3), (2, 1), (2, 1), groups=2, bias=False).half().train()
    state = torch.get_rng_state()
    conv = folded_conv(like, like.weight.double(), torch.ones(4, dtype=torch.float64))
    assert torch.equal(state, torch.get_rng_state())
    assert repr(conv) == repr(like).replace(", bias=False", "")
    assert conv.training
    assert conv.weight.dtype == conv.bias.dtype == torch.float16
    assert torch.equal(conv.weight, like.weight)
    assert conv.weight.requires_grad


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_the_identity_is_a_kernel(groups: int) -> None:
    torch.manual_seed(0)
    conv, norm, x = nn.Conv2d(8, 8, 5, padding=2, groups=groups), batch_norm(8), torch.randn(2, 8, 7, 7).double()
    with torch.no_grad():
        copy = folded_conv(conv.double(), identity_kernel(conv), torch.zeros(8))
        assert torch.equal(copy(x), x)
        normed = folded_conv(conv, *fuse_norm(identity_kernel(conv), None, norm))
        assert apart(norm.double()(x), normed(x)) < 1e-14


def test_small_and_dilated_kernels_fit_into_larger_ones() -> None:
    torch.manual_seed(0)
    x, kernel = torch.randn(2, 4, 13, 13).double(), torch.randn(4, 1, 3, 3).double()
    large = pad_kernel(dilate_kernel(kernel, 4), (11, 11))
    assert large.shape == (4, 1, 11, 11)
    spread = nn.functional.conv2d(x, kernel, padding=4, dilation=4, groups=4)
    assert apart(spread, nn.functional.conv2d(x, large, padding=5, groups=4)) < 1e-14
    flat = pad_kernel(kernel[:, :, 1:2], (5, 3))
    assert torch.equal(flat[:, :, 2], kernel[:, :, 1])
    assert int((flat != 0).sum()) == kernel[:, :, 1].numel()


def test_every_foldable_layer_is_folded_and_nothing_else() -> None:
    class Layer(Foldable):
        folded = 0

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

        def fold(self) -> Replaced:
            self.folded += 1
            return {"conv": ("conv", "bn")}

    def model() -> nn.Sequential:
        return nn.Sequential(Layer(), nn.Sequential(nn.ReLU(), Layer()))

    def folded(model: nn.Module) -> list[int]:
        return [module.folded for module in model.modules() if isinstance(module, Layer)]

    every, some = model(), model()
    assert fold(every) == {"0.conv": ("0.conv", "0.bn"), "1.1.conv": ("1.1.conv", "1.1.bn")}
    assert folded(every) == [1, 1]
    assert fold(lone := Layer()) == {"conv": ("conv", "bn")}
    assert lone.folded == 1
    kept = [name for name in some.state_dict() if name.startswith(("0.", "1.1.conv"))]
    assert fold(some, kept) == {"1.1.conv": ("1.1.conv", "1.1.bn")}
    assert folded(some) == [0, 1]

"""What is computed otherwise on a GPU is the same: here on the CPU, and by ``pytest -m gpu`` on a real one."""

import os
import subprocess
import sys

import pytest
import torch

from wisepatch.models.gpu_kernels import embed_patches, quick_gelu, use_products_for_patches

GPU = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.mark.parametrize(("patch", "channels", "bias", "size"), [(32, 3, False, (224, 224)), (7, 4, True, (30, 23))])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("device", ["cpu", GPU])
def test_patches_are_embedded_as_by_the_convolution(patch, channels, bias, size, order, device):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(channels, 9, patch, patch, bias=bias).double().to(device)
    images = torch.randn(3, channels, *size, dtype=torch.float64, device=device).to(memory_format=order)
    expected, embedded = conv(images), embed_patches(conv, images)
    assert embedded.shape == expected.shape
    assert torch.allclose(embedded, expected)
    expected.square().sum().backward()
    gradient = conv.weight.grad.clone()
    conv.weight.grad = None
    embed_patches(conv, images).square().sum().backward()
    assert torch.allclose(conv.weight.grad, gradient)


def test_only_convolutions_that_cut_an_image_into_patches_are_replaced():
    convolutions = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Conv2d(3, 8, 4, 2), torch.nn.Conv2d(3, 8, 4, 4, padding=1),
        torch.nn.Conv2d(8, 8, 2, 2), torch.nn.Conv2d(4, 8, 4, 4, groups=2), torch.nn.Conv2d(3, 8, 4, 4, dilation=2),
    )  # fmt: skip
    images = torch.randn(2, 3, 8, 8)
    expected = convolutions[0](images)
    use_products_for_patches(convolutions)
    assert ["forward" in vars(each) for each in convolutions] == [True, *[False] * 5]
    assert torch.equal(convolutions[0](images), expected)  # on the CPU and in fp32 the convolution itself


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", ["cpu", GPU])
def test_quick_gelu_in_place_is_open_clips(dtype, device):
    from open_clip.transformer import QuickGELU

    x = torch.linspace(-20, 20, 5001, device=device).to(dtype).view(3, -1)
    expected = QuickGELU()(x.double())
    result = quick_gelu(x)
    assert result is x
    assert torch.allclose(result.double(), expected, atol=8 * torch.finfo(dtype).eps, rtol=4 * torch.finfo(dtype).eps)


@pytest.mark.gpu
def test_quick_gelu_is_one_kernel_on_a_gpu():
    from wisepatch.models.gpu_kernels import _quick_gelu_kernel

    assert _quick_gelu_kernel(torch.device("cuda", 0), torch.bfloat16) is not None


def test_the_kernel_computes_quick_gelu_in_tritons_interpreter():
    pytest.importorskip("triton")
    code = """
import torch
from wisepatch.models.quick_gelu_kernel import quick_gelu_kernel
x = torch.cat([torch.linspace(-20, 20, 2500), torch.full((8,), 7.0)])
expected = (x * torch.sigmoid(1.702 * x))[:2500]
quick_gelu_kernel[(3,)](x, 2500, 1024)
assert torch.allclose(x[:2500], expected, atol=1e-6), (x[:2500] - expected).abs().max()
assert (x[2500:] == 7).all()
"""
    env = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=env)

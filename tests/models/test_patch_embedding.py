"""Patches embedded by a product are those of the convolution: on the CPU, and by ``pytest -m gpu`` on a GPU."""

import pytest
import torch

from wisepatch.models.patch_embedding import embed_patches, use_products_for_patches

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

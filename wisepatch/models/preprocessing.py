"""What a model does to an image before it sees it, taken apart: bytes first, and what is left for a whole batch on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch


def halves(transform: Any) -> tuple[Callable[[Any], torch.Tensor], Sequence[float], Sequence[float]] | None:
    """A transform as open_clip makes it: what comes before ``ToTensor``, as bytes, then mean and std; ``None`` for any other."""
    from torchvision import transforms

    steps = list(getattr(transform, "transforms", ()))
    if (
        len(steps) < 2
        or not isinstance(steps[-2], transforms.ToTensor)
        or not isinstance(steps[-1], transforms.Normalize)
    ):
        return None
    return transforms.Compose([*steps[:-2], transforms.PILToTensor()]), steps[-1].mean, steps[-1].std


class OnTensors:
    """Resizing and cropping of tensors: in half the time, off by 1 or 2 of 255 here and there."""

    def __init__(self, steps: Sequence[Any]) -> None:
        """Keep torchvision's transforms."""
        self.steps = steps

    def __call__(self, image: Any) -> torch.Tensor:
        """Turn a PIL image into ``uint8`` pixels ``(3, height, width)``."""
        import numpy as np
        import torch

        # Laid out as in the image, channels last, which the resizing of bytes is made for.
        found = torch.from_numpy(np.array(image if image.mode == "RGB" else image.convert("RGB"))).permute(2, 0, 1)
        for step in self.steps:
            found = step(found)
        return found.contiguous()


def on_tensors(pixels: Callable[[Any], torch.Tensor]) -> Callable[[Any], torch.Tensor]:
    """A transform of PIL images on tensors; as it was where it has other steps than resizing and cropping."""
    from torchvision import transforms
    from torchvision.transforms import v2

    steps: list[Any] = []
    for step in getattr(pixels, "transforms", [None]):
        if type(step) is transforms.Resize:
            steps.append(v2.Resize(step.size, step.interpolation, step.max_size, antialias=True))
        elif type(step) is transforms.CenterCrop:
            steps.append(v2.CenterCrop(step.size))
        elif not isinstance(step, transforms.PILToTensor) and type(step).__name__ != "MaybeConvertMode":
            return pixels
    return OnTensors(steps)

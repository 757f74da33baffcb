"""Choose the device that this process computes on (``--device``), one for all that it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wisepatch.errors import UsageError
from wisepatch.ranks import is_set, local_rank, local_size, size

if TYPE_CHECKING:
    import torch

_chosen: list[str] = []  # by use_device, one or none


def use_device(name: str | None) -> None:
    """Compute on ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` from here on; ``None`` is a GPU where there is one, else the CPU.

    Nothing that is stored depends on it. Raises :class:`UsageError` for a device that there is not, and where several processes
    would share one.
    """
    known = available()
    if name is not None and name not in known:
        raise UsageError(f"there is no device {name!r} here", f"there is: {', '.join(known)}")
    if size() > 1 and name not in (None, "cpu", "cuda"):
        raise UsageError(
            f"{size()} processes cannot share the device {name}",
            "write --device cuda, and each takes the GPU of its own number, or --device cpu",
        )
    _chosen[:] = [name] if name else []
    if device().type == "cuda" and device().index is not None:
        import torch

        torch.cuda.set_device(device())


@contextmanager
def computing_on(name: str | None) -> Iterator[None]:
    """Compute on a device meanwhile; see :func:`use_device`. ``None`` changes nothing, and loads nothing."""
    if name is None:
        yield
        return
    use_device(name)
    try:
        yield
    finally:
        use_device(None)


def device() -> torch.device:
    """Return the device of this process: of several on a machine each has the GPU of its own number."""
    import torch

    on_gpu = torch.cuda.is_available() and not is_set("ACCELERATE_USE_CPU")
    name = _chosen[0] if _chosen else "cuda" if on_gpu else "cpu"
    if name == "cuda" and size() > 1:
        gpus = torch.cuda.device_count()
        if local_size() > gpus:
            raise UsageError(
                f"{local_size()} processes on a machine need as many GPUs, and there are {gpus}",
                "start fewer, or give --device cpu",
            )
        return torch.device("cuda", local_rank())
    return torch.device(name)


def available() -> list[str]:
    """Return the names of the devices of this machine."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = ["cuda", *(f"cuda:{number}" for number in range(gpus))] if gpus else []
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def has_room(device: torch.device, size: int) -> bool:
    """Tell whether so many bytes take no more than half of what a GPU has free: the rest is for what is computed."""
    import torch

    return device.type != "cuda" or size <= torch.cuda.mem_get_info(device)[0] // 2


def set_up_accelerate() -> bool:
    """Let Accelerate compute on the same device; return what :class:`accelerate.Accelerator` is to be given as ``cpu``."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import patch_environment

    on_cpu = size() > 1 and device().type == "cpu"
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run in this process may have had another
    with patch_environment(**({"ACCELERATE_TORCH_DEVICE": _chosen[0]} if _chosen and size() == 1 else {})):
        PartialState(cpu=on_cpu)
    return on_cpu

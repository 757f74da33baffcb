"""Read what ``torchrun``, ``accelerate launch`` or ``--processes`` say of this process: its number, and how many there are."""

from __future__ import annotations

import os

from wisepatch.errors import UsageError

SPLIT_MODELS = {  # what `accelerate launch` sets, where a process would hold a part of the model only
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}


def size() -> int:
    """Return the number of processes that share the command."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """Return the number of this process, from 0, the main one's."""
    return int(os.environ.get("RANK") or 0) if size() > 1 else 0


def local_rank() -> int:
    """Return the number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK") or 0) if size() > 1 else 0


def local_size() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or local_rank() + 1)


def is_main() -> bool:
    """Tell whether this is the process that writes and prints."""
    return rank() == 0


def is_set(name: str) -> bool:
    """Tell whether a variable of the environment says yes."""
    return os.environ.get(name, "").lower() in ("true", "1", "yes", "y", "on", "t")


def check_launcher() -> None:
    """Raise :class:`UsageError` where the launcher asks for what cannot be: a model in parts, of which a part would be saved."""
    for name, what in SPLIT_MODELS.items():
        if is_set(name):
            raise UsageError(
                f"{what} is not supported ({name} is set): every process holds the whole model",
                "start with `accelerate launch --multi_gpu`, `torchrun` or --processes",
            )
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if size() > 1 and missing:
        raise UsageError(
            f"WORLD_SIZE is {size()}, and {', '.join(missing)} not set",
            "start with `torchrun`, `accelerate launch` or --processes, or unset WORLD_SIZE",
        )

"""Start one command in several processes of this machine (``--processes``), and end them together."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from wisepatch.process_group import SECONDS_TO_END

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
SECONDS_BETWEEN_LOOKS = 0.05


def start_processes(count: int, command: Sequence[str]) -> int:
    """Run a command in ``count`` processes; return the exit code of the first that failed, or 0.

    They meet at a store that this process holds, and end soon after it, however it ends. Signals go on to them.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    threads = max((os.cpu_count() or 1) // count, 1)
    shared = {
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads),
    }  # fmt: skip
    children: list[subprocess.Popen[bytes]] = []
    with _forwarding(children):
        for rank in range(count):
            environment = os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            # In groups of their own: a terminal's Ctrl-C comes to them through this process, once.
            children.append(subprocess.Popen(command, env=environment, process_group=0))
        return _wait(children)


@contextmanager
def _forwarding(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Hand signals on to all children, and leave it to them when to end."""

    def forward(number: int, _: Any) -> None:
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all children; where one fails, the others have a while to end by themselves."""
    failed, deadline = 0, math.inf
    running = list(children)
    while running:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        running = [child for child in running if child.poll() is None]
        # Of several that ended since the last look, one that was killed (its code is below 0) is why the others failed.
        failed = failed or min((child.returncode for child in children if child.returncode), default=0)
        if failed:
            deadline = min(deadline, time.monotonic() + 2 * SECONDS_TO_END)
        if time.monotonic() > deadline:
            for child in running:
                child.kill()
    return 128 - failed if failed < 0 else failed

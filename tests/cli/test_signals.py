"""Signals that end a command: its exit code, what it says, and that no process that loads images lives on."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "wisepatch"]
LONG = [
    *("finetune", "--model", "demo", "--task", "Digits", "--steps", "100000", "--workers", "2", "--save-every", "0"),
    *("--batch-size", "8"),
]


def members(group):
    """The living processes of a group, by what the kernel says."""
    found = []
    for folder in (each for each in Path("/proc").iterdir() if each.name.isdigit()):
        with suppress(OSError):  # it ended meanwhile
            state, _, pgrp = (folder / "stat").read_text().rpartition(") ")[2].split()[:3]
            found += [folder.name] if int(pgrp) == group and state != "Z" else []
    return found


def wait_until(condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for processes as Linux does")
@pytest.mark.parametrize(
    ("number", "to_all", "code"),
    [
        (signal.SIGINT, True, 130),
        pytest.param(signal.SIGTERM, False, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, False, 129, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, False, -9, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_command_and_all_that_it_started(tmp_path, number, to_all, code):
    """Ctrl-C goes to every process of a terminal, other signals to the one that they are sent to."""
    program = subprocess.Popen(
        [*PROGRAM, *LONG], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        wait_until(lambda: len(members(program.pid)) >= 3)  # the program and two that load images
        (os.killpg if to_all else os.kill)(program.pid, number)
        said = program.communicate(timeout=300)[1]
        assert program.returncode == code
        wait_until(lambda: not members(program.pid))
        if number != signal.SIGKILL:
            assert said.splitlines()[-1].startswith("interrupted: what is in the store is whole; ")
            assert "Traceback" not in said
    finally:
        if members(program.pid):
            os.killpg(program.pid, signal.SIGKILL)


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    """As under nohup: the terminal goes, the command stays."""
    program = subprocess.Popen(
        [*PROGRAM, "datasets", "check", "Shapes"], cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    while program.poll() is None:
        program.send_signal(signal.SIGHUP)
        time.sleep(0.01)
    assert program.returncode == 0


INTERRUPTED = """
import importlib.abc, signal, sys, weakref

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            {how}

sys.meta_path.insert(0, Interrupting())

class Descriptor:
    def __set_name__(self, owner, name):
        signal.raise_signal(signal.{number})

class Thing:
    pass

from wisepatch.__main__ import main
sys.argv = ["wisepatch", *"zeroshot --model demo --task Shapes".split()]
main()
"""


@pytest.mark.parametrize(
    "how",
    [
        "signal.raise_signal(signal.{number})",
        "type('Enum', (), {'member': Descriptor()})",  # wrapped in a RuntimeError
        "thing = Thing(); ref = weakref.ref(thing, lambda _: signal.raise_signal(signal.{number})); del thing",  # ignored by Python
    ],
)
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_while_a_library_is_imported_is_one_line(tmp_path, how, number, code):
    script = INTERRUPTED.replace("{how}", how).replace("{number}", number)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("interrupted: what is in the store is whole; ")
    assert done.returncode == code

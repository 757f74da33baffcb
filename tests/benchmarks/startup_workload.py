"""W6: how long the command line takes to start."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.benchmarks.harness import measure

PROGRAM = Path(sys.executable).with_name("wisepatch")  # the console script of this environment
COMMAND = [str(PROGRAM)] if PROGRAM.is_file() else [sys.executable, "-m", "wisepatch"]


def command(clock, words):
    """Run a command once; returns its exit code and whether it said anything."""
    # pip compiles what it installs; without this an editable installation may be compiled at every start
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with clock:
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=surroundings | {"COLUMNS": "100"})
    return done.returncode, bool(done.stdout.strip()) or words[-2] == "-c"


def startup(bench):
    """``--help`` and ``datasets`` beside the import of what they are built with."""
    sides = {
        "import": [sys.executable, "-c", "import typer, rich"],
        "--help": [*COMMAND, "--help"],
        "datasets": [*COMMAND, "datasets"],
    }
    jobs = {name: partial(measure, command, "here", words=words) for name, words in sides.items()}
    found = bench.alternate(jobs, max(bench.repeats, 5 if bench.quick else 15))
    for name in ("--help", "datasets"):
        agree = all(each.result == (0, True) for each in found[name])
        note = "reference: python -c 'import typer, rich'"
        row = bench.row(f"wisepatch {name}", found["import"], found[name], agree, 1 / 1.5, note)
        yield replace(row, reference_mb=None, wisepatch_mb=None)  # those would be this process's

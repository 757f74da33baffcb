"""Kills: at each file operation in turn, and at any time among many processes; `--kills N` tries more than a few."""

import json
import subprocess
import sys

import pytest


@pytest.fixture
def kills(request):
    return request.config.getoption("--kills")


def run(script, folder, *arguments):
    command = [sys.executable, "-m", f"tests.store.{script}", folder, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_end_or_a_failure_at_any_file_operation_leaves_a_whole_store(tmp_path, kills):
    tried = run("crash_steps", tmp_path, kills or 2)
    assert {each["action"] for each in tried} >= {"save", "cache", "append", "predictions", "rm", "gc"}
    assert all(each["tried"] > 0 for each in tried)
    print(sum(2 * each["tried"] for each in tried), tried)  # noqa: T201 -- for pytest -s


def test_four_processes_of_every_kind_and_kills_lose_nothing_that_was_reported(tmp_path, kills):
    (done,) = run("crowd", tmp_path, kills or 3, 1)
    assert min(done[name] for name in ("batches", "rows", "saved", "lists", "verified", "cached")) > 0
    assert done["torn lines"] <= done["kills"]
    print(done)  # noqa: T201

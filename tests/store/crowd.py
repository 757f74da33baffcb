"""Four processes of every kind use one store at once, and are killed now and then; a script, so that torch is imported once.

``python -m tests.store.crowd FOLDER KILLS SEED`` prints what was tried and found as a JSON object. An assertion ends the script.
"""

import collections
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pandas  # noqa: F401 -- before the first fork
import pyarrow.parquet  # noqa: F401
import torch

from wisepatch.errors import StoreError, UnknownNameError
from wisepatch.files import PARTIAL
from wisepatch.locks import LOCK
from wisepatch.store import sharing
from wisepatch.store.checkpoints import Recipe, Store
from wisepatch.store.predictions import load_predictions, prediction_problems, save_predictions
from wisepatch.store.results import append, read, read_runs

EACH = 4  # processes of a kind
REPORTED = "reported"  # the folder of what processes say that they have done
MODEL = {"model": "demo", "pretrained": ""}
os.fsync = lambda _: None  # the machine does not end here


def end(store, name, value):
    return store.save({"w": torch.full((50,), float(value))}, kind="zeroshot", name=name, model=MODEL)


def mix(store, name, start, finish, alpha):
    recipe = Recipe("linear", (start.id, finish.id), {"alpha": alpha})
    return store.save(None, kind="interpolated", name=name, model=MODEL, recipe=recipe)


def answers(value):
    return {
        "image": ["a", "b"],
        "label": np.arange(2),
        "answer": np.full(2, value),
        "confidence": np.ones(2, np.float32),
    }


def allow(error, *reasons):
    if not any(reason in error.message for reason in reasons):
        raise error


def saves(store, draw, report):
    """Save ends that stay and ends that others remove, in part the same as others save, and mixes of them."""
    kept, doomed = end(store, "kept", draw.randrange(6)), end(store, "doomed", draw.randrange(6))
    report("kept", kept.id)
    mix(store, "doomed mix", kept, doomed, draw.randrange(1, 4) / 4)
    again = store.read(store.find(kept.id))["w"]
    assert torch.equal(again, again[0].expand(50))


def appends(store, draw, report):
    run = f"run-{os.getpid()}-{draw.randrange(10**9)}"
    rows = [
        {"run": run, "task": "x" * draw.randrange(400), "metric": "top1", "value": i}
        for i in range(draw.randrange(1, 9))
    ]
    append(store.results, rows)
    report("rows", f"{run} {len(rows)}")
    assert len(read_runs([store.results], [run])[0]) == len(rows)


def lists(store, draw, report):
    checkpoints, unreadable = store.scan()
    assert not unreadable, unreadable
    word = draw.choice(["zeroshot", "kept", "interpolated", "doomed", "doomed mix"])
    try:
        found = store.find(word)
    except (UnknownNameError, StoreError) as error:
        allow(error, "unknown checkpoint", " yet")
    else:
        assert word in (found.name, found.kind)
    report("lists", len(checkpoints))


def verifies(store, draw, report):
    problems = [problem for problem in store.problems(store.everything()).values() if problem]
    assert not problems, problems
    for found in (store.cache.problems(), prediction_problems(store)):
        assert not found, found
    report("verified", "whole")


def removes(store, draw, report):
    """Remove what is doomed, unless a process uses it, and collect garbage."""
    doomed = [c for c in store.everything() if c.name.startswith("doomed")]
    try:
        for gone in store.remove(draw.sample(doomed, min(len(doomed), 2)), with_recipes=True):
            report("removed", gone.id)
            assert gone.name.startswith("doomed")
    except StoreError as error:
        allow(error, "is used by process", "is not in the store")
        report("refused", error.message)
    if draw.random() < 0.3:
        store.collect_garbage(caches=draw.random() < 0.5)


def caches(store, draw, report):
    kind, value = draw.choice(["heads", "features"]), draw.randrange(6)
    tensors = store.cache.tensors(kind, f"{value:032x}", lambda: {"w": torch.full((500,), float(value))})
    assert torch.equal(tensors["w"], torch.full((500,), float(value)))
    report("cached", value)
    try:
        kept = store.find("kept")
    except UnknownNameError:
        return
    save_predictions(store, kept, "Shapes", "val", answers(value), {})
    assert len(set(load_predictions(store, kept, "Shapes", "val")["answer"])) == 1


KINDS = (saves, appends, lists, verifies, removes, caches)


def start(kind, root, seed):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # until the process knows what to do with it
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        return child
    status = 1
    try:
        stop = []
        signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        report_file = (root / REPORTED / f"{os.getpid()}-{seed}").open("ab", buffering=0)

        def report(what, said):
            report_file.write(f"{what} {said}\n".encode())

        store, draw = Store(root / "store"), random.Random(seed)
        parent, done = os.getppid(), False
        while not done:
            kind(store, draw, report)
            time.sleep(draw.random() * 0.02)
            done = stop or os.getppid() != parent
        status = 0
    except BaseException:  # noqa: BLE001 -- whatever it is, the parent is told
        traceback.print_exc()
    sharing._end_leases()
    os._exit(status)


def reported(root):
    lines = [line for path in (root / REPORTED).iterdir() for line in path.read_text().splitlines()]
    said = collections.defaultdict(list)
    for line in lines:
        what, _, rest = line.partition(" ")
        said[what].append(rest)
    return said


def check(store, root):
    said, (frame, problems) = reported(root), read(store.results)
    rows = collections.Counter(frame["run"])
    for run, count in map(str.split, said["rows"]):
        assert rows.pop(run) == int(count), (run, "lost rows")
    removed, ids = set(said["removed"]), {checkpoint.id for checkpoint in store.everything()}
    assert set(said["kept"]) <= ids
    assert not store.unreadable()
    assert not [problem for problem in store.problems(store.everything()).values() if problem]
    assert not store.cache.problems()
    assert not prediction_problems(store)
    store.collect_garbage()
    left = list(store.root.rglob(f"*{PARTIAL}*"))
    assert not left, left
    leases = [path for path in (store.root / sharing.LEASES).iterdir() if path != sharing._leases[store.root].path]
    assert not leases, leases
    assert not list((store.root / "cache").rglob(f".*{LOCK}"))
    # A writer that was killed before it could report may have written its rows.
    return {
        "batches": len(said["rows"]), "rows": len(frame), "unreported": len(rows), "torn lines": len(problems),
        "saved": len(said["kept"]), "removed": len(removed), "refused": len(said["refused"]), "lists": len(said["lists"]),
        "verified": len(said["verified"]), "cached": len(said["cached"]),
    }  # fmt: skip


def main(root, kills, seed):
    (root / REPORTED).mkdir()
    draw, number = random.Random(seed), iter(range(seed * 10**6, (seed + 1) * 10**6))
    store = Store(root / "store")
    end(store, "kept", 0)
    began = time.monotonic()
    running = {start(kind, root, next(number)): kind for kind in KINDS for _ in range(EACH)}
    for _ in range(kills):
        time.sleep(draw.random() * 0.05)
        victim = draw.choice(list(running))
        os.kill(victim, signal.SIGKILL)
        kind, status = running.pop(victim), os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1])
        assert status == -signal.SIGKILL, (kind.__name__, status)
        running[start(kind, root, next(number))] = kind
    time.sleep(0.5)
    for child in running:
        os.kill(child, signal.SIGTERM)
    for child, kind in running.items():  # none waits for a lock of the dead
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, kind.__name__
    sharing.use(store.root, "this process")
    found = {"kills": kills, "seconds": round(time.monotonic() - began)} | check(store, root)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]))

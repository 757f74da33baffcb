"""Ends a process, or makes it fail, at each of its file operations in turn; a script, so that torch is imported once.

``python -m tests.store.crash_steps FOLDER COUNT`` prints a JSON line for each action: its name, how many operations it has, and at
how many of them a process was killed and an operation failed (``COUNT`` at most, spread evenly). An assertion ends the script.
"""

import errno
import json
import os
import shutil
import sys
import traceback
from pathlib import Path

import numpy as np
import torch

from wisepatch.errors import StoreError, WisepatchError
from wisepatch.files import PARTIAL, refused, remove_leftovers
from wisepatch.locks import LOCK
from wisepatch.store import sharing
from wisepatch.store.cache import TENSORS
from wisepatch.store.checkpoints import MANIFEST, WEIGHTS, Recipe, Store
from wisepatch.store.predictions import load_predictions, prediction_problems, save_predictions
from wisepatch.store.results import append, read
from wisepatch.store.runs import Run, run_problems

EVENTS = {
    "open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.scandir", "os.listdir", "fcntl.flock",
}  # fmt: skip
KILLED, REFUSED = 9, 3
MODEL = {"model": "demo", "pretrained": ""}
ROWS = [{"run": "r", "task": "Shapes", "metric": "top1", "value": value / 10} for value in range(3)]
OUTCOME = {"losses": [0.5]}
damaged_id = []
COLUMNS = ("image", "label", "answer", "confidence")
os.fsync = lambda _: None  # the machine does not end here


def save(store, name="new", value=1.0, **more):
    return store.save({"w": torch.full((3,), value)}, kind="zeroshot", name=name, model=MODEL, **more)


def mix(store, name, *parents):
    recipe = Recipe("linear", tuple(parent.id for parent in parents), {"alpha": 0.5})
    return store.save(None, kind="interpolated", name=name, model=MODEL, recipe=recipe)


def answers(shift):
    return dict(zip(COLUMNS, (["a", "b"], np.arange(2), np.arange(2) + shift, np.ones(2, np.float32)), strict=True))


def predict(store, shift):
    save_predictions(store, store.look_up("kept"), "Shapes", "val", answers(shift), {})


def put(store, kind="heads", digest="0" * 32, value=1.0):
    return store.cache.tensors(kind, digest, lambda: {"weight": torch.full((3,), value)})


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def run_of(store):
    return Run(store.root, {"config": {"task": "Shapes"}}, "fingerprint of the images")


def keep_state(store, step):
    run = run_of(store)
    with run.lock():
        run.begin()
        folder = run.new_state()
        with refused("the state", StoreError, ""):
            (folder / "weights").write_bytes(bytes(100))
        run.keep_state(folder, step, {"step": step})


def finish(store):
    with run_of(store).lock():
        run_of(store).finish(OUTCOME)


def newest_state(store):
    found = run_of(store).newest_state(lambda _: None)
    return found[1]["step"] if found else None


def fill(store):
    """What is in the store before each action, and must be there after it."""
    keep_state(store, 1)
    keep_state(store, 2)
    save(store, "kept", 0.0)
    mix(store, "kept mix", save(store, "kept end", 2.0), store.look_up("kept"))
    put(store, digest="1" * 32)
    append(store.results, ROWS)
    predict(store, 0)


def litter(store):
    save(store, "lost", 5.0)
    mix(store, "orphan", store.look_up("lost"), store.look_up("kept"))
    shutil.rmtree(store.look_up("lost").home)
    (store.checkpoints / f"{PARTIAL}01234567").mkdir()
    (store.checkpoints / f"{PARTIAL}01234567" / WEIGHTS).touch()
    (store.root / "cache" / "heads" / f"{PARTIAL}01234567.lock").touch()
    put(store, "fisher", "2" * 32)
    put(store, "features", "3" * 32)
    shutil.copytree(store.predictions / store.look_up("kept").id, store.predictions / ("a" * 12))


def names(store):
    return sorted(checkpoint.name for checkpoint in store.everything())


def spoil_manifest(store):
    saved = save(store)
    (saved.home / MANIFEST).write_bytes(b"{")
    damaged_id[:] = [saved.id]


def is_saved(store):
    return any(checkpoint.name == "new" and not store.problem(checkpoint) for checkpoint in store.everything())


def is_put(store):
    return store.cache.find("heads", "0" * 32) is not None


def is_clean(store):
    leftovers = [path for path in store.root.rglob(f"*{PARTIAL}*") if path.suffix != LOCK]  # an empty lock is no harm
    return not leftovers and "orphan" not in names(store) and not (store.predictions / ("a" * 12)).exists()


# Name: what is there before, the action, and whether it was done.
ACTIONS = {
    "save": (lambda _: None, save, is_saved),
    "save over damage": (lambda store: flip(save(store).home / WEIGHTS), save, is_saved),
    "save again": (save, save, is_saved),
    "save a recipe": (lambda _: None, lambda s: mix(s, "new", s.look_up("kept"), s.look_up("kept end")), is_saved),
    "cache": (lambda _: None, put, is_put),
    "cache over damage": (
        lambda store: (put(store), flip(store.root / "cache" / "heads" / ("0" * 32) / TENSORS)), put, is_put,
    ),
    "append": (lambda _: None, lambda s: append(s.results, ROWS), lambda s: len(read(s.results)[0]) == 2 * len(ROWS)),
    "predictions": (
        lambda _: None, lambda s: predict(s, 1),
        lambda s: list(load_predictions(s, s.look_up("kept"), "Shapes", "val")["answer"]) == [1, 2],
    ),
    "rm": (
        lambda store: mix(store, "mix of new", save(store), store.look_up("kept")),
        lambda store: store.remove([store.look_up("new")], with_recipes=True),
        lambda store: not {"new", "mix of new"} & set(names(store)),
    ),
    "rm of a damaged manifest": (
        spoil_manifest,
        lambda store: store.remove([store.look_up_damaged(*damaged_id)]),
        lambda store: not store.unreadable(),
    ),
    "state": (lambda _: None, lambda store: keep_state(store, 3), lambda store: newest_state(store) == 3),
    "finish": (
        lambda _: None, finish, lambda store: run_of(store).finished() == OUTCOME and not run_of(store).states(),
    ),
    "gc": (litter, lambda store: store.collect_garbage(caches=True), is_clean),
}  # fmt: skip


class Fault:
    """Counts file operations below a folder, and kills the process or fails at one of them."""

    def __init__(self, root, at, kills):
        self.root, self.left, self.kills, self.count = str(root), at, kills, 0

    def __call__(self, event, args):
        if event not in EVENTS:
            return
        place = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
        if place.startswith("/") and not place.startswith(self.root):
            return  # a module that is imported
        self.count += 1
        self.left -= 1
        if self.left == 0:
            if self.kills:
                os._exit(KILLED)
            raise OSError(errno.EIO, "a disk that fails", place)


def in_child(act, store, at=0, kills=True):
    """Run an action in a process of its own; return its exit status and the number of its operations."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        fault = Fault(store.root, at, kills)
        sys.addaudithook(fault)
        status = 0
        try:
            act(store)
        except WisepatchError:
            status = REFUSED
        except BaseException:  # noqa: BLE001 -- whatever it is, the parent is told
            traceback.print_exc()
            status = 1
        os.write(writer, f"{fault.count}".encode())
        os._exit(status)
    os.close(writer)
    said = os.read(reader, 100)
    os.close(reader)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(said or 0)


def check_whole(store, step, *, damage=False):
    """All that was there is there, and nothing is damaged but what was damaged before."""
    checkpoints, unreadable = store.scan()
    problems = {
        c.name: p for c in checkpoints if (p := store.problem(c)) and not (damage and c.name in ("new", "orphan"))
    }
    assert not problems, (step, problems)
    assert damage or not unreadable, (step, unreadable)
    assert {"kept", "kept end", "kept mix"} <= set(names(store)), step
    assert damage or not store.cache.problems(), (step, store.cache.problems())
    assert store.cache.find("heads", "1" * 32), step
    assert not prediction_problems(store), step
    assert not run_problems(store.root), (step, run_problems(store.root))
    frame, problems = read(store.results)
    assert not problems, (step, problems)
    assert len(frame) in (len(ROWS), 2 * len(ROWS)), step
    predicted = list(load_predictions(store, store.look_up("kept"), "Shapes", "val")["answer"])
    assert predicted in ([0, 1], [1, 2]), step
    assert newest_state(store) in (2, 3) or run_of(store).finished() == OUTCOME, step


def try_one(template, root, act, is_done, at, kills, step):
    shutil.copytree(template, root)
    store = Store(root)
    status, _ = in_child(act, store, at, kills)
    assert status in (0, KILLED, REFUSED), step
    check_whole(store, step, damage=True)
    if status == 0:
        assert is_done(store), step
    if not is_done(store):
        act(store)  # the same command again
    assert is_done(store), step
    store.collect_garbage()
    check_whole(store, step)
    leftovers = sorted(str(path.relative_to(root)) for path in root.rglob(f"*{PARTIAL}*"))
    assert not leftovers, (step, leftovers)
    assert not remove_leftovers(root), step
    sharing._end_leases()
    assert list((root / sharing.LEASES).iterdir()) == [], step
    shutil.rmtree(root)


def main(folder, count, only=""):
    for name, (prepare, act, is_done) in ((name, action) for name, action in ACTIONS.items() if only in name):
        template = folder / "template"
        store = Store(template)
        fill(store)
        prepare(store)
        sharing._end_leases()
        shutil.copytree(template, folder / "count")
        status, operations = in_child(act, Store(folder / "count"))
        assert status == 0, name
        assert operations > 3, (name, operations)
        shutil.rmtree(folder / "count")
        steps = range(1, operations + 1, max(1, -(-operations // count)))
        for kills in (True, False):
            for at in steps:
                try_one(template, folder / "store", act, is_done, at, kills, (name, at, "kill" if kills else "fail"))
        shutil.rmtree(template)
        sys.stdout.write(json.dumps({"action": name, "operations": operations, "tried": len(steps)}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), *sys.argv[3:])

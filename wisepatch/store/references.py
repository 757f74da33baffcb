"""Find a checkpoint by a word: its kind, its name, the beginning of its id, or its path."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wisepatch.errors import StoreError, UnknownNameError
from wisepatch.files import is_file
from wisepatch.store.manifests import (
    ID,
    MANIFEST,
    Checkpoint,
    UnreadableManifestError,
    is_gone,
    manifests_below,
    parse_manifest,
    read_manifest,
)
from wisepatch.store.sharing import use

if TYPE_CHECKING:
    from wisepatch.store.checkpoints import Store

# What find() knows beside names and ids: the kinds of checkpoints, how they are called, and the command that makes one.
REFERENCES = {
    "zeroshot": (("zeroshot",), "zero-shot", "zeroshot --task TASK"),
    "finetuned": (("finetuned",), "fine-tuned", "finetune --task TASK"),
    "interpolated": (("interpolated",), "interpolated", "interpolate"),
    "patched": (("patched",), "patched", "patch --task TASK --supported TASKS"),
    "merged": (("merged",), "merged", "merge CHECKPOINT..."),
    "latest": (("finetuned", "patched"), "fine-tuned", "finetune --task TASK"),
}
CREATED = re.compile(rb'"created": *"([^"]*)"')


def find(store: Store, reference: str) -> Checkpoint:
    """Return the checkpoint that ``reference`` names, which other processes cannot remove until this one ends.

    That is ``zeroshot``, ``finetuned``, ``interpolated``, ``patched`` (the newest of the kind), ``latest`` (the newest
    fine-tuned or patched one), a name (the newest of that name), the beginning of an id, or the path of a checkpoint's folder.

    Raises :class:`StoreError` where the store holds none of the kind, :class:`UnknownNameError` for any other word.
    """
    while True:
        checkpoint = look_up(store, reference)
        use(checkpoint.home.parent.parent, checkpoint.id)
        if is_file(checkpoint.home / MANIFEST):  # not removed between the two
            return checkpoint


def look_up(store: Store, reference: str) -> Checkpoint:
    """Return the checkpoint that ``reference`` names as :func:`find` does, for one that may be removed at any time."""
    if reference in REFERENCES:
        return _newest_of_kind(store, *REFERENCES[reference])
    found = by_id(store, reference) or _newest(store, [reference], lambda checkpoint: checkpoint.name == reference)
    if found:
        return found
    checkpoints = store.everything()
    begun = [c for c in checkpoints if len(reference) >= 3 and c.id.startswith(reference)]
    if len(begun) > 1:
        ids = ", ".join(checkpoint.id for checkpoint in begun)
        raise StoreError(f"{reference!r} begins {len(begun)} ids: {ids}", "give more of the id")
    if begun:
        return begun[0]
    folder = Path(reference)
    folder = folder.parent if folder.name == MANIFEST else folder
    if is_file(folder / MANIFEST):
        return read_manifest(folder.resolve())
    hint = "`wisepatch store list` lists the names and ids there are"
    raise UnknownNameError("checkpoint", reference, [*REFERENCES, *(each.name for each in checkpoints)], hint)


def look_up_damaged(store: Store, reference: str) -> Checkpoint:
    """Return what :func:`look_up` does, also for the id of one whose manifest cannot be read: to be removed, nothing else."""
    folder = store.checkpoints / reference
    try:
        return look_up(store, reference)
    except UnreadableManifestError as error:
        if ID.fullmatch(reference):
            return Checkpoint(reference, "damaged", "", {}, home=folder)
        raise error


def by_id(store: Store, identity: str) -> Checkpoint | None:
    """Return the checkpoint with exactly this id, ``None`` where there is none."""
    if not ID.fullmatch(identity):
        return None
    try:
        return read_manifest(store.checkpoints / identity)
    except UnreadableManifestError as error:
        if is_gone(error):
            return None
        raise


def _newest(store: Store, words: Sequence[str], fits: Callable[[Checkpoint], bool]) -> Checkpoint | None:
    """Return the newest checkpoint that ``fits``; manifests without one of the words are not parsed, nor are older ones."""
    needles = [json.dumps(word).encode() for word in words]
    candidates = [
        ((CREATED.findall(content) or [b""])[-1], folder, content)
        for folder, content in manifests_below(store.checkpoints)
        if isinstance(content, bytes) and any(needle in content for needle in needles)
    ]
    for _, folder, content in sorted(candidates, key=lambda candidate: candidate[0], reverse=True):
        try:
            checkpoint = parse_manifest(content, folder)
        except StoreError:
            continue
        if fits(checkpoint):
            return checkpoint
    return None


def _newest_of_kind(store: Store, kinds: Sequence[str], described: str, command: str) -> Checkpoint:
    found = _newest(store, kinds, lambda checkpoint: checkpoint.kind in kinds)
    if found:
        return found
    none, unreadable = f"no {described} checkpoint in the store {store.root}", store.unreadable()
    if unreadable:
        raise StoreError(f"{none} can be read: {unreadable[0].message}", unreadable[0].hint)
    raise StoreError(f"{none} yet", f"run `wisepatch {command}` first, or name a store with --store")

"""Tables of checkpoints: the runs of a store, and all that is known of one checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wisepatch.counting import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wisepatch.store.checkpoints import Checkpoint, Store

COLUMNS = ("name", "id", "alpha", "run", "kind", "training", "method", "weights", "created")
ALWAYS = 3  # of them that are shown in the narrowest terminal, too
MIX = "interpolated"


def grouped(checkpoints: Sequence[Checkpoint]) -> list[list[Checkpoint]]:
    """Group checkpoints, oldest first: mixes with the fine-tuned one that they come from, merges by their parents and method."""
    known = {each.id: each for each in checkpoints}
    groups: dict[tuple[str, ...], list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        groups.setdefault(_origin(checkpoint, known), []).append(checkpoint)
    return [sorted(group, key=lambda each: each.recipe is not None) for group in groups.values()]


def _origin(checkpoint: Checkpoint, known: Mapping[str, Checkpoint]) -> tuple[str, ...]:
    """Return the id of a fine-tuned checkpoint, for its mixes with what it was trained from as well; else method and parents."""
    if checkpoint.recipe is None:
        return (checkpoint.id,)
    *starts, end = checkpoint.parents
    of_pair = len(starts) == 1 and end in known and starts[0] in known[end].parents
    return (end,) if of_pair else (checkpoint.recipe.method, *checkpoint.parents)


def columns_that_fit(rows: Sequence[Sequence[object]], width: int) -> int:
    """Return how many of ``COLUMNS`` fit into a terminal that is ``width`` wide, at least the first ``ALWAYS``."""
    from rich.cells import cell_len

    wide = [max(cell_len(str(cell)) for cell in column) + 3 for column in zip(COLUMNS, *rows, strict=True)]
    return next((n for n in range(len(COLUMNS), ALWAYS, -1) if sum(wide[:n]) < width), ALWAYS)


def lines(
    store: Store, group: Sequence[Checkpoint], names: Mapping[str, str], *, every: bool
) -> list[tuple[object, ...]]:
    """Return the rows of a group, in the order of ``COLUMNS``; ``names`` are those given to runs, by checkpoint.

    The mixes share a row unless ``every`` one is asked for.
    """
    mixes = [checkpoint for checkpoint in group if checkpoint.kind == MIX and checkpoint.is_recipe]
    if every or len(mixes) < 2:
        mixes = []
    rows: list[tuple[object, ...]] = []
    for checkpoint in group:
        if checkpoint not in mixes:
            rows.append(_line(store, checkpoint, _name(checkpoint, group, names)))
        elif checkpoint is mixes[0]:
            alphas = sorted(each.alpha for each in mixes if each.alpha is not None)
            prefix, created = checkpoint.name.rpartition("/")[0], mixes[-1].created
            methods = " ".join(dict.fromkeys(each.method for each in mixes))
            span = f"{alphas[0]:g} to {alphas[-1]:g}" if alphas else "-"
            what, run = f"{prefix}: {count(len(mixes), 'mix', 'mixes')}", _name(mixes[-1], group, names)
            rows.append((what, "-", span, run, MIX, checkpoint.training or "-", methods, "recipes", _when(created)))
    return rows


def _line(store: Store, checkpoint: Checkpoint, run: str) -> tuple[object, ...]:
    weights = "recipe" if checkpoint.is_recipe else f"{store.size(checkpoint) / 1e6:.1f} MB"
    alpha = "-" if checkpoint.alpha is None else f"{checkpoint.alpha:g}"
    return (
        checkpoint.name, checkpoint.id, alpha, run if checkpoint.parents else "", checkpoint.kind, checkpoint.training or "-",
        checkpoint.method or "-", weights, _when(checkpoint.created),
    )  # fmt: skip


def _when(created: str) -> str:
    return created[:19].replace("T", " ")


def facts(store: Store, checkpoint: Checkpoint) -> dict[str, str]:
    """Return what is known of a checkpoint, in words by field: model, lineage, recipe, settings, seed, versions."""
    recipe = checkpoint.recipe
    known: dict[str, Any] = {
        "kind": checkpoint.kind,
        "model": " ".join(value for name, value in checkpoint.model.items() if value and name != "settings"),
        "training": checkpoint.training,
        "made from": list(_lineage(store, checkpoint)),
        "method": checkpoint.method,
        **({f"recipe: {name}": value for name, value in recipe.params.items()} if recipe else {}),
        **dict(_settings(checkpoint.config)),
        "head": f"trained, {count(len(checkpoint.head['classes']), 'class', 'classes')}" if checkpoint.head else "",
        "run": _run_name(store, checkpoint),
        "weights": "recipe" if checkpoint.is_recipe else f"{store.size(checkpoint) / 1e6:.1f} MB",
        "sha256": ", ".join(checkpoint.files.values()),
        "created": _when(checkpoint.created),
        "versions": ", ".join(f"{name} {version}" for name, version in checkpoint.versions.items()),
    }
    return {name: _in_words(value) for name, value in known.items() if value not in (None, "", (), [], {})}


def _settings(config: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yield the settings by name, those within others (of an import, coefficients by task) one by one."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from ((f"{name}: {inner}", each) for inner, each in value.items())
        else:
            yield name.replace("_", "-"), value


def _in_words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _run_name(store: Store, checkpoint: Checkpoint) -> str:
    everything = store.everything()
    group = next((each for each in grouped(everything) if checkpoint in each), [checkpoint])
    return _name(checkpoint, group, run_names(store, everything))


def run_names(store: Store, checkpoints: Sequence[Checkpoint]) -> dict[str, str]:
    """Return the names given to runs, by checkpoint: of mixes the newest that measured them, of others that which trained them."""
    from wisepatch.store.results import names_of_checkpoints
    from wisepatch.store.runs import names_of_trainings

    measured = names_of_checkpoints(store.results)
    mixes = {each.id: measured[each.id] for each in checkpoints if each.recipe and each.id in measured}
    return mixes | names_of_trainings(store.root)


def _name(checkpoint: Checkpoint, group: Sequence[Checkpoint], names: Mapping[str, str]) -> str:
    """Return the name of a checkpoint's run: the newest that measured it, else the same recipe, else one of its group."""
    same = [each for each in group if checkpoint.recipe and each.recipe == checkpoint.recipe]
    mixes = [each for each in group if checkpoint.parents and each.recipe]
    return next((names[each.id] for each in (checkpoint, *same, *mixes, *group) if each.id in names), "")


def _lineage(store: Store, checkpoint: Checkpoint) -> Iterable[str]:
    """Yield the name and id of each checkpoint that one comes from."""
    for each in ancestors(store, checkpoint):
        yield f"{each} (removed)" if isinstance(each, str) else f"{each.name} ({each.id})"


def ancestors(store: Store, checkpoint: Checkpoint) -> Iterable[Checkpoint | str]:
    """Yield each checkpoint that one comes from, parents first, each once; of one that was removed the id.

    An imported one comes from the parent that it was given too, whose text tower it may have.
    """
    from wisepatch.errors import StoreError

    seen, waiting = set(), _made_from(checkpoint)
    while waiting:
        identity = waiting.pop(0)
        if identity in seen:
            continue
        seen.add(identity)
        try:
            parent = store.get(identity)
        except StoreError:
            yield identity
            continue
        yield parent
        waiting += _made_from(parent)


def _made_from(checkpoint: Checkpoint) -> list[str]:
    given = checkpoint.config.get("imported", {}).get("parent")
    return [*checkpoint.parents, *([given] if given else [])]

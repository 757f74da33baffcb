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
    """Group checkpoints, oldest first, by the fine-tuned one that they come from; others stand alone."""
    groups: dict[str, list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        end = checkpoint.parents[-1] if checkpoint.recipe else checkpoint.id
        groups.setdefault(end, []).append(checkpoint)
    return [sorted(group, key=lambda each: each.recipe is not None) for group in groups.values()]


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
    run = next((names[each.id] for each in [*mixes, *group] if each.parents and each.id in names), "")
    rows: list[tuple[object, ...]] = []
    for checkpoint in group:
        if checkpoint not in mixes:
            rows.append(_line(store, checkpoint, names.get(checkpoint.id, run)))
        elif checkpoint is mixes[0]:
            alphas = sorted(each.alpha for each in mixes if each.alpha is not None)
            prefix, created = checkpoint.name.rpartition("/")[0], mixes[-1].created
            methods = " ".join(dict.fromkeys(each.method for each in mixes))
            span = f"{alphas[0]:g} to {alphas[-1]:g}" if alphas else "-"
            what = f"{prefix}: {count(len(mixes), 'mix', 'mixes')}"
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
    from wisepatch.store.results import names_of_checkpoints
    from wisepatch.store.runs import names_of_trainings

    names = names_of_checkpoints(store.results) | names_of_trainings(store.root)
    mixes = [each for each in store.everything() if checkpoint.recipe and each.parents == checkpoint.parents]
    return next((names[each.id] for each in (checkpoint, *mixes) if each.id in names), "")


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

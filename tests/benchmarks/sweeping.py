"""The jobs of the sweeps: the papers' loop and wisepatch's, on the same images and ends."""

import shutil
from pathlib import Path

import numpy as np

from tests.benchmarks import reference
from wisepatch import EvalConfig, ModelConfig, Store, TrainConfig, finetune, sweep
from wisepatch.store.predictions import load_predictions


def alphas(number):
    """``number`` evenly spaced coefficients from 0 to 1, as ``0:1:0.1`` gives them."""
    return tuple(round(index / (number - 1), 6) for index in range(number))


def reference_sweep(clock, folder, tasks, number, workers, freeze_encoder=False):
    folder = Path(folder)
    with clock:
        return reference.sweep(
            folder / "zeroshot.pt", folder / "finetuned.pt", [str(task) for task in tasks], alphas(number), folder / "mixes",
            workers=workers, freeze_encoder=freeze_encoder,
        )  # fmt: skip


def wisepatch_sweep(clock, folder, tasks, number, mixed_precision="no", forget=False):
    """``forget`` removes cached features first."""
    store = Store(Path(folder) / "store")
    shutil.rmtree(store.predictions, ignore_errors=True)
    if forget:
        shutil.rmtree(store.cache.root / "features", ignore_errors=True)
    with clock:
        done = sweep(store, Path(folder), alphas=alphas(number), settings=EvalConfig(mixed_precision=mixed_precision))
    checkpoints = [done.checkpoints[alpha] for alpha in alphas(number)]
    return {
        str(task): np.stack([load_predictions(store, each, Path(task).name, "test")["answer"] for each in checkpoints])
        for task in tasks
    }


def patched_digits(clock, folder, steps):
    """Fine-tune the embedded model on Digits, as the demo does."""
    config = TrainConfig.with_defaults(
        "Digits", supported=("Shapes", "Colors", "Textures"), steps=steps, batch_size=64, lr=2e-4
    )
    finetune(config, ModelConfig("demo", ""), Store(Path(folder) / "store"), Path(folder))


def chosen_sweep(clock, folder, alphas, rule):
    """Return the chosen alpha, its patching accuracy on val, and the share of the grid's evaluations on val."""
    store = Store(Path(folder) / "store")
    shutil.rmtree(store.predictions, ignore_errors=True)
    with clock:
        done = sweep(store, Path(folder), alphas=alphas, rule=rule)
    facts = done.facts
    share = facts["evaluations"] / facts["grid_evaluations"] if "evaluations" in facts else 1.0
    return done.choice.alpha, done.choice.patching, share


def differing(one, other):
    """How many predictions differ, and of how many; both ``{task: (alphas, n)}``."""
    assert set(one) == set(other)
    return sum(int((one[task] != other[task]).sum()) for task in one), sum(found.size for found in one.values())


def accuracy(said):
    """Mean accuracy over tasks and alphas; the pictures of every class are equally many and lie in order."""
    from tests.benchmarks.material import CLASSES

    shares = []
    for found in said.values():
        labels = np.repeat(np.arange(len(CLASSES)), found.shape[1] // len(CLASSES))
        shares.append((found == labels).mean())
    return float(np.mean(shares))


def spread(said):
    """How many different answers there are: with one alone, agreement would say little."""
    return len(np.unique(np.concatenate([found.ravel() for found in said.values()])))

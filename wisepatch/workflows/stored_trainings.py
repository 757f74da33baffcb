"""Find a training that the store holds: one that differs in nothing that decides about the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from wisepatch.config import ModelConfig
from wisepatch.errors import StoreError
from wisepatch.process_group import on_main
from wisepatch.store.checkpoints import Store
from wisepatch.store.runs import finished_trainings
from wisepatch.tasks import Task
from wisepatch.train_config import TrainConfig
from wisepatch.training.finetuning import Finetuned

# Names of other tasks, how often they are looked at, and what loads images decide nothing about the weights of an end.
INDIFFERENT = ("supported", "eval_every", "workers")


def held_end(config: TrainConfig, model: ModelConfig, store: Store, data: Path, task: Task) -> Finetuned | None:
    """Return a finished training of the same task, images, settings and start that is whole in the store; ``None`` without one.

    Tasks that were measured beside it may be others, but not where the best weights were kept or the training stopped early.
    """

    def look() -> Finetuned | None:
        wanted = _deciding(json.loads(json.dumps(config.identity | {"task": task.base_spec})))
        images: str | None = None
        for identity, fingerprint, outcome in finished_trainings(store.root):
            if _deciding(identity.get("config", {})) != wanted:
                continue
            images = images or task.dataset.split("train", data).fingerprint()
            with suppress(StoreError, KeyError, TypeError):
                begun, end = store.get(outcome["zeroshot"]), store.get(outcome["finetuned"])
                start = store.find(config.start) if config.start else None
                same = begun.id == start.id if start else (begun.kind, begun.model) == ("zeroshot", model.to_json())
                if same and fingerprint == images and not any(store.problem(each) for each in (begun, end)):
                    return Finetuned(begun, end, tuple(outcome["losses"]))
        return None

    return on_main(look)


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    indifferent = INDIFFERENT if config.get("keep_best") is None else ("supported", "workers")
    return {name: value for name, value in config.items() if name not in indifferent}

"""Train every objective for two steps, in one process or several: ``python -m tests.training.objectives.every SHAPES FOLDER``."""

import json
import sys
from pathlib import Path

from wisepatch import ModelConfig, Store, TrainConfig, finetune, process_group
from wisepatch.plugins import find_objective
from wisepatch.training.objectives.builtin import OBJECTIVES


def train_all(shapes, folder):
    """Batches of five of twelve images: two processes share them unevenly, and the last of an epoch has two."""
    losses = {}
    for each in OBJECTIVES:
        config = TrainConfig.with_defaults(
            str(shapes), head=find_objective(each.name).head or None, objective=each.name, supported=("Colors",),
            steps=3, epochs=None, batch_size=5, lr=1e-3, warmup=0, distill_on="Colors" if each.unlabelled else None, limit=12,
            ema=0.5 if each.name == "car-ft" else None, lora=2 if each.name == "lipsum" else None,
        )  # fmt: skip
        losses[each.name] = finetune(config, ModelConfig("demo", ""), Store(folder / each.name), folder).losses
    if process_group.is_main():
        (folder / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    train_all(Path(sys.argv[1]), Path(sys.argv[2]))
    process_group.leave()

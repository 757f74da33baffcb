"""What is said of validation data while a model is trained."""

from dataclasses import replace

import torch

from wisepatch import EvalConfig, ModelConfig, evaluate
from wisepatch.evaluation.validation import watcher
from wisepatch.models.classifier import Classifier
from wisepatch.models.clip import load_clip
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.tasks import Task, find_task


def test_the_line_that_training_shows_is_the_accuracy_on_validation_data(run_store, tasks, tmp_path):
    """Of the trained head on the first task, of text-derived ones on the others; tasks without validation are left out."""
    start = run_store.find("zeroshot")
    untested = Task("untested", replace(tasks[0].dataset, name="untested", splits=("test",)))
    colors = find_task("Colors")
    watch = watcher([tasks[0], untested, colors], run_store, tmp_path, EvalConfig(batch_size=3, workers=0))
    clip = load_clip(ModelConfig("demo", ""))
    classifier = Classifier(
        clip.model.visual, zeroshot_head(clip, tasks[0].dataset.head_names, tasks[0].dataset.templates)
    )
    rows = evaluate([start], [tasks[0], colors], run_store, tmp_path, split="val", record=False)
    expected = ", ".join(f"{row['task']} {100 * row['value']:.1f} %" for row in rows)
    assert watch(clip, classifier, 1.5).text == f"epoch 1.5 (val): {expected}"
    with torch.no_grad():
        classifier.bias[0] += 1e6
    (first,) = (row for row in rows if row["task"] == "shapes")
    split = tasks[0].dataset.split("val", tmp_path)
    share = sum(split.samples[index][1] == 0 for index in range(first["n"])) / first["n"]
    assert f"shapes {100 * share:.1f} %" in watch(clip, classifier, 2).text

"""Completion of values in the shell."""

import pytest

from wisepatch.cli import completion


class Context:
    def __init__(self, **params):
        self.params = params


def test_tasks_models_rules_metrics_and_methods_are_completed():
    nowhere = Context(store="nowhere")
    assert completion.tasks(nowhere, "cifar10") == ["CIFAR10", "CIFAR10.1", "CIFAR10.2", "CIFAR100"]
    assert completion.tasks(nowhere, "MNIST,cifar10.") == ["MNIST,CIFAR10.1", "MNIST,CIFAR10.2"]
    assert completion.tasks(nowhere, "corr") == ["corrupt:"]
    assert completion.tasks(nowhere, "MNIST,corrupt:sha") == ["MNIST,corrupt:Shapes"]
    assert completion.tasks(nowhere, "corrupt:Shapes:fo") == ["corrupt:Shapes:fog"]
    assert "ViT-B-32" in completion.models(nowhere, "vit-b")
    assert completion.models(nowhere, "de") == ["demo"]
    assert completion.rules(nowhere, "") == ["best-mean", "max-drop=", "knee", "alpha=", "weights="]
    assert completion.metrics(nowhere, "top1,mean") == ["top1,mean_per_class"]
    assert completion.methods(nowhere, "f") == ["fisher"]
    assert completion.checkpoints(nowhere, "fine") == ["finetuned"]
    assert completion.runs(nowhere, "n") == ["newest"]


def test_checkpoints_and_runs_of_the_store_are_completed(cli, run_store):
    cli("interpolate", "--alpha", "0,0.5", "--eval", "Colors@val", "--name", "first try")
    here, finetuned = Context(store=run_store.root), run_store.find("finetuned")
    assert completion.checkpoints(here, "demo/shapes/f") == ["demo/shapes/finetuned"]
    assert completion.checkpoints(here, finetuned.id[:6]) == [finetuned.id]
    assert completion.runs(here, "first") == ["first try"]


def test_what_fails_completes_nothing(monkeypatch):
    monkeypatch.setattr("wisepatch.plugins.registry", lambda: 1 / 0)
    assert completion.tasks(Context(), "a") == []


@pytest.mark.parametrize(
    ("words", "begun", "completed"),
    [
        (("patch", "--task"), "MNI", "MNIST"),
        (("patch", "--task", "MNIST", "--supported"), "MNIST,STL", "MNIST,STL10"),
        (("finetune", "--model"), "dem", "demo"),
        (("patch", "--select"), "max", "max-drop="),
        (("eval",), "patch", "patched"),
        (("export",), "zero", "zeroshot"),
        (("store", "show"), "lat", "latest"),
        (("plot", "--run"), "newe", "newest"),
    ],
)
def test_the_shell_is_told_what_may_follow(cli, monkeypatch, words, begun, completed):
    from typer.testing import CliRunner

    from wisepatch.cli.app import app

    line = " ".join(["wisepatch", *words, begun])
    env = {"_WISEPATCH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) + 1)}
    assert CliRunner().invoke(app, [], prog_name="wisepatch", env=env).stdout.split("\n")[0] == completed

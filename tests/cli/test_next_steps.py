"""The next steps that commands name work when they are pasted."""

import os
import re
import subprocess

import pytest

from tests.samples import draw_folder
from wisepatch import Store

NEXT = re.compile(r"^next: wisepatch (.*)$", re.MULTILINE)


def words_of(command):
    """Take a command apart as the shell does in which it is pasted."""
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    return [os.fsdecode(word) for word in words.split(b"\0")[:-1]]


def paste(cli, result):
    """Run the one command that a result names as the next step."""
    assert result.exit_code == 0, result.output
    (command,) = NEXT.findall(result.stdout + result.stderr)
    return cli(*words_of(command))


@pytest.fixture
def where(tmp_path, data):
    """A store and a data folder that are not the default ones; the name of the store is one that takes quoting."""
    return "--store", tmp_path / "it's a\nstore", "--data", data


def test_every_next_step_works_when_pasted(cli, tmp_path, where):
    task, other = draw_folder(tmp_path / os.fsdecode(b"my caf\xe9s")), draw_folder(tmp_path / "others")
    few = ("--steps", "2", "--batch-size", "4")
    result = cli("zeroshot", "--model", "demo", "--task", f"{other}@val,{task}", "--template", "a {} here.", *where)
    (command,) = NEXT.findall(result.stderr)
    assert "--model demo" in command
    assert "--template" in command
    result = cli("finetune", "--model", "demo", "--task", task, "--supported", other, *few, *where)
    result = paste(cli, result)  # interpolate
    assert "chosen: alpha" in result.stderr
    result = paste(cli, result)  # plot
    assert result.exit_code == 0, result.output
    assert (tmp_path / "plot.png").exists()
    (tmp_path / "plot.png").unlink()
    template = ("--template", "one {} there.")
    patched = cli("patch", "--model", "demo", "--task", task, "--alpha", "0,1", *few, *template, *where)
    assert paste(cli, patched).exit_code == 0
    assert (tmp_path / "plot.png").exists()
    assert cli("report", "--output", tmp_path / "report.html", *where).exit_code == 0
    exported = cli("export", "finetuned", tmp_path / "my model", *where)
    assert "'--template=one {} there.'" in exported.stderr  # or it would be measured with other prompts
    result = paste(cli, exported)
    assert result.exit_code == 0, result.output


def test_the_next_step_of_zeroshot_trains_on_the_first_task_that_can_be_trained(cli, tmp_path, where, monkeypatch):
    untold = draw_folder(tmp_path / "untold" / "test", classes=("circle", "star")).parent
    result = cli("zeroshot", "--model", "demo", "--task", f"{untold},Colors,Colors@val", *where)
    (command,) = NEXT.findall(result.stderr)
    assert f"--task Colors --supported {untold} " in command
    monkeypatch.setattr("wisepatch.workflows.patching.finetune_on", lambda config, *_, **__: pytest.exit(config.task))
    with pytest.raises(pytest.exit.Exception, match="Colors"):
        cli(*words_of(command))
    assert "next:" not in cli("zeroshot", "--model", "demo", "--task", untold, *where).stderr


def test_the_next_steps_of_the_demo_work_when_pasted(cli, tmp_path, where, monkeypatch):
    monkeypatch.setattr("wisepatch.cli.demo.TRAINING", {"steps": 1, "batch_size": 4, "lr": 1e-3})
    monkeypatch.setattr("wisepatch.cli.demo.SUPPORTED", ("Colors",))
    monkeypatch.setattr("wisepatch.workflows.sweep_plan.DEFAULT_ALPHAS", "0,1")
    result = cli("demo", "--output", tmp_path / "demo.png", *where[:2])
    assert paste(cli, result).exit_code == 0
    assert "--task FOLDER" in result.stderr


def test_a_picture_that_fails_after_training_names_the_model_and_how_to_draw_it(cli, shapes, where, monkeypatch):
    def fail(*_):
        raise OSError("no room")

    with monkeypatch.context() as broken:
        broken.setattr("wisepatch.reports.plots.draw_sweep", fail)
        words = ("--steps", "1", "--batch-size", "4", "--alpha", "0,1", "--output", "a.png")
        with pytest.raises(OSError, match="no room") as caught:
            cli("patch", "--model", "demo", "--task", shapes, *words, *where)
    (note,) = caught.value.__notes__
    assert Store(where[1]).find("patched").id in note
    command = note.partition("draw it with: wisepatch ")[2]
    assert cli(*words_of(command)).exit_code == 0

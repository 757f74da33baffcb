"""Options: where their values come from, and every mistake a user can make with them."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.samples import broken_png, fails
from wisepatch import EvalConfig, Recipe, TrainConfig
from wisepatch.cli.options import TrainOptions, with_settings
from wisepatch.config import setting


def test_values_of_options_reach_commands_from_words_environment_and_defaults(cli, run_store, monkeypatch):
    def kinds(*words):
        return [json.loads(line)["kind"] for line in cli("store", "list", "--json", *words).stdout.splitlines()]

    both = ["zeroshot", "finetuned"]
    assert (kinds(), kinds("--store", run_store.root), kinds("--store", "nowhere")) == (both, both, [])
    monkeypatch.setenv("WISEPATCH_STORE", "nowhere")
    assert (kinds(), kinds("--store", run_store.root)) == ([], both)


@pytest.mark.parametrize(
    "words",
    [
        ("eval", " , "), ("eval", "zeroshot", "--task", " , "), ("eval", "zeroshot", "--metric", " , "),
        ("finetune", "--task", "Digits", "--supported", " , "), ("finetune", "--task", "Digits", "--freeze", " , "),
        ("finetune", "--model", "demo", "--task", "Digits", "--track", " , "), ("patch", "--task", "Digits", "--also", " , "),
        ("interpolate", "--eval", " , "), ("interpolate", "--fisher", " , "), ("plot", "--run", " , "),
        ("compare", "zeroshot", "finetuned", "--task", " , "), ("merge", "finetuned", "zeroshot", "--eval", " , "),
        ("datasets", "check", " , "), ("report", "--run", " , "), ("plugins", "check", "none", "--task", " , "),
    ],
)  # fmt: skip
def test_a_list_of_commas_alone_is_refused(cli, run_store, words):
    fails(cli(*words), 2, "the list ' , ' names nothing", "between the commas")


def test_long_list_of_tasks_is_no_file_name(cli):
    fails(
        cli("zeroshot", "--model", "demo", "--task", ",".join(["Shapes"] * 80 + ["Shpes"])), 2, "unknown task 'Shpes'"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Shapes", "--group", "x"), "note: --group changes nothing: no task is a folder or CSV of yours\n"),
        (
            ("Shapes", "Colors", "--colour-managed", "--on-bad-image", "skip"),
            "note: --colour-managed, --on-bad-image change nothing: no task is a folder or CSV of yours\n",
        ),
        (("corrupt:{shapes}:fog:3", "--label-column", "kind"), "note: --label-column changes nothing: no task is a CSV of yours\n"),
        (("Shapes", "typo:{shapes}@val", "--group", "x"), ""),
        (("Shapes", "list.csv", "--path-column", "file", "--label-column", "kind"), ""),
    ],
)  # fmt: skip
def test_options_for_own_files_that_change_nothing_are_named(cli, shapes, words, said):
    Path("list.csv").write_text(
        "file,kind\n" + "".join(f"{image},{image.parent.name}\n" for image in shapes.glob("*/*"))
    )
    stderr = cli("datasets", "check", *(word.format(shapes=shapes) for word in words)).stderr
    assert said in stderr
    assert ("nothing" in stderr) == bool(said)


@pytest.mark.parametrize("command", [("interpolate", "--alpha", "0"), ("merge", "finetuned", "zeroshot")])
def test_own_files_that_are_measured_besides_are_read_as_the_options_say(cli, run_store, shapes, command):
    broken_png(sorted(shapes.glob("*/*"))[0])
    Path("list.csv").write_text(
        "file,kind\n" + "".join(f"{image},{image.parent.name}\n" for image in shapes.glob("*/*"))
    )
    words = (
        "--eval",
        "list.csv@all",
        "--path-column",
        "file",
        "--label-column",
        "kind",
        "--on-bad-image",
        "skip",
        "--limit",
        "20",
    )
    result = cli(*command, *words, "--json")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["n"] for row in rows if row.get("task") == "list"} == {17}


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("zeroshot", "--task", "Shpes"), "unknown task 'Shpes'; did you mean Shapes?", "wisepatch datasets"),
        (("zeroshot", "--task", "Shapes@vel"), "unknown split 'vel'", "train, val, test"),
        (("zeroshot", "--model", "ViT-B-23", "--task", "Shapes"), "unknown model 'ViT-B-23'; did you mean", "hf-hub:"),
        (
            ("zeroshot", "--pretrained", "openia", "--task", "Shapes"),
            "unknown pretrained weights of ViT-B-32: 'openia'; did you mean openai",
            "give a file",
        ),
        (("zeroshot", "--model", "demo", "--task", "Shapes", "--metric", "top3"), "unknown metric 'top3'", "top1"),
        (
            ("zeroshot", "--model", "demo", "--task", "Shapes", "--template", "photo"),
            "unknown prompt template 'photo'",
            "{}",
        ),
        (("interpolate", "--alpha", "0:1"), "alphas '0:1' are not understood", "0:1:0.1"),
        (("interpolate", "--alpha", "0:2:0.5"), "alpha 1.5 lies outside [0, 1]", "zero-shot"),
        (("interpolate", "--select", "best"), "unknown rule 'best'", "max-drop"),
        (("interpolate", "--select", "max-drop=1%"), "max-drop needs a fraction, not '1%'", "0.01"),
        (
            ("finetune", "--task", "Shapes", "--steps", "0", "--lr", "-1"),
            "steps must be above 0, not 0; lr must be",
            "--help",
        ),
        (("finetune", "--task", "Shapes", "--seed", "-1"), "seed must lie in [0, 2**32), not -1", ""),
        (
            ("finetune", "--task", "Shapes", "--wd", "nan", "--lr", "inf"),
            "lr must be above 0, not inf; wd must not be",
            "",
        ),
        (
            ("finetune", "--task", "Shapes", "--model", "demo", "--pretrained", "x.pt"),
            "demo brings its own weights",
            "leave",
        ),
        (
            ("finetune", "--task", "Shapes", "--model", "demo", "--from", "patched"),
            "--from patched already says which",
            "leave",
        ),
        (
            ("zeroshot", "--task", "Shapes,Colors", "--classnames", "names.txt"),
            "class names are given for several tasks",
            "one",
        ),
        (
            ("plot", "--output", "/proc/nowhere/plot.png"),
            "the picture /proc/nowhere/plot.png cannot be written",
            "--output",
        ),
        (("plot", "--output", "plot.gif"), "cannot draw '.gif'", ".png, .svg, .pdf"),
        (("plot", "--output", "plot"), "cannot draw 'a file without suffix'", ".png"),
        (("demo", "--output", "demo.txt"), "cannot draw '.txt'", ".png"),
    ],
)
def test_usage_errors_name_thing_reason_and_next_step(cli, run_store, words, message, hint):
    Path("names.txt").write_text("a\n")
    fails(cli(*words), 2, message, hint)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("interpolate",), "no fine-tuned checkpoint in the store", "wisepatch finetune --task"),
        (("eval", "zeroshot", "--task", "Shapes"), "no zero-shot checkpoint in the store", "wisepatch zeroshot"),
        (("eval", "patched", "--task", "Shapes"), "no patched checkpoint in the store", "wisepatch patch"),
        (("plot",), "there are no results at", "wisepatch interpolate"),
        (("finetune", "--task", "MNIST", "--data", "nowhere"), "the data folder nowhere does not exist", "--data"),
        (("zeroshot", "--task", "./nowhere"), "there is no folder or CSV ./nowhere", "check the path"),
        (("zeroshot", "--task", "pictures.csv"), "there is no folder or CSV pictures.csv", ""),
    ],
)
def test_missing_things_say_how_to_make_them(cli, words, message, hint):
    fails(cli(*words), 1, message, hint)


def test_unknown_checkpoint_lists_close_names(cli, run_store):
    result = cli("eval", "demo/shape/finetuned", "--task", "Shapes")
    fails(result, 2, "unknown checkpoint 'demo/shape/finetuned'; did you mean demo/shapes/finetuned", "store list")
    fails(cli("eval", "pached", "--task", "Shapes"), 2, "unknown checkpoint 'pached'; did you mean patched?")


def test_names_with_commas_can_be_given(cli, run_store):
    recipe = Recipe("linear", (run_store.find("zeroshot").id,), {})
    run_store.save(None, kind="patched", name="a, b", model={"model": "demo", "pretrained": ""}, recipe=recipe)
    assert "removed a, b" in cli("store", "rm", "a, b").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("datasets", "show", ""), "no task is named"),
        (("datasets", "check", "@val"), "the task name '@val' is empty"),
        (("datasets", "show", "FMoWOOD"), "the task 'FMoWOOD' is of the plugin wisepatch-wilds, which is not installed"),
        (("finetune", "--model", "demo", "--task", "CIFAR10.1"), "task 'CIFAR10.1' has no 'train' split"),
        (("zeroshot", "--model", "demo", "--task", "ImageNetA@val"), "task 'ImageNetA' has no 'val' split"),
    ],
)  # fmt: skip
def test_names_that_cannot_be_used_are_refused_before_anything_is_loaded(cli, words, message):
    result = cli(*words)
    assert result.exit_code in (1, 2)
    assert f"error: {message}" in result.stderr
    assert "hint: " in result.stderr


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (("finetune", "--task", "Shapes", "--head", "warm"), ("frozen", "trained")),
        (("finetune", "--task", "Shapes", "--mixed-precision", "int8"), ("no", "bf16", "fp16")),
        (("eval", "zeroshot", "--task", "Shapes", "--mixed-precision", "int8"), ("no", "bf16", "fp16")),
        (("interpolate", "--select", "best-mean", "--select-on", "tset"), ("val", "test")),
    ],
)
def test_a_value_that_is_not_a_choice_is_named_with_the_choices(cli, run_store, words, choices):
    result = cli(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"'{words[-2]}'" in result.stderr
    assert all(f"'{word}'" in result.stderr for word in (words[-1], *choices))


@dataclass(frozen=True)
class Settings:
    """Settings as a command may declare them."""

    batch_size: int | None = setting(None, "Images.", "Panel", min=1)
    workers: int = setting(2, "Processes.", "Panel")
    start: str | None = setting(None, "Where to start.", None, flags=("--from",))
    hidden: int = 7


def runs(command, *words):
    app = typer.Typer()
    app.command()(with_settings(command))
    return CliRunner().invoke(app, words)


def test_fields_become_options_and_the_command_gets_the_class_filled_in():
    def command(first: Settings, word: str = "x"):
        typer.echo(f"{first} {word}")

    result = runs(command, "--batch-size", "4", "--from", "here", "--word", "y")
    assert result.stdout == f"{Settings(batch_size=4, start='here')} y\n"
    assert runs(command, "--batch-size", "0").exit_code == 2
    assert runs(command, "--hidden", "1").exit_code == 2
    text = runs(command, "--help").stdout
    assert "Images." in text
    assert "Panel" in text


def test_a_field_that_two_classes_share_is_one_option_or_has_the_prefix_eval():
    def command(train: TrainOptions, evaluation: EvalConfig):
        typer.echo([train["batch_size"], train["workers"], evaluation.batch_size, evaluation.workers])

    assert runs(command, "--batch-size", "4", "--eval-batch-size", "5", "--workers", "1").stdout == "[4, 1, 5, 1]\n"
    assert runs(command).stdout == "[None, None, None, None]\n"


@pytest.mark.parametrize("name", ["eval", "finetune", "interpolate", "patch", "typo-attack eval", "zeroshot"])
def test_every_setting_is_an_option_of_the_commands_that_take_it(cli, name):
    text = cli(*name.split(), "--help").stdout
    trains, evaluates = name in ("finetune", "patch"), name != "finetune"
    for kind, taken, prefix in ((TrainConfig, trains, ""), (EvalConfig, evaluates, "eval-" if trains else "")):
        for field in (field for field in fields(kind) if "help" in field.metadata and taken):
            shared = field.name in ("workers", "mixed_precision")
            clash = prefix if field.name == "batch_size" and not shared else ""
            (flag,) = field.metadata.get("flags", (f"--{clash}{field.name.replace('_', '-')}",))
            assert f" {flag} " in text

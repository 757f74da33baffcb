"""The command line: what people see, what programs read, and every mistake a user can make."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.samples import broken_png, draw_folder, write_mnist
from wisepatch.store.checkpoints import Recipe

HEAVY = ("torch", "torchvision", "open_clip", "accelerate", "pandas", "matplotlib", "sklearn", "timm", "numpy")
COMMANDS = (
    "demo", "patch", "zeroshot", "finetune", "interpolate", "eval", "plot", "typo-attack", "datasets", "export", "store", "plugins",
)  # fmt: skip


def heavy_after(*words):
    """Run the program in a process of its own; its exit code, and which heavy libraries it loaded."""
    code = (
        "import sys\nfrom wisepatch.cli.app import app\n"
        f"try:\n    app({list(words)!r})\nexcept SystemExit as e:\n    code = e.code\n"
        f"print('loaded', code, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return out.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--help",), 0),
        (("finetune", "--help"), 0),
        (("datasets",), 0),
        (("store", "list", "--store", "nowhere"), 0),
        (("plugins",), 0),
        (("finetune", "--task", "Shpes"), 2),
        (("interpolate", "--alpha", "0:1"), 2),
        (("eval",), 2),
    ],
)
def test_help_listings_and_usage_errors_load_nothing_heavy(words, code):
    assert heavy_after(*words) == f"loaded {code} []"


@pytest.mark.parametrize("words", [("--help",), ("datasets",), ("store", "list", "--json"), ("plugins",)])
def test_help_and_listings_load_nothing_slow_and_no_other_command(words):
    slow = ("rich.console", "pydantic", "importlib.metadata")
    if words[0] != "store":  # hashes what it holds
        slow += ("_hashlib", "_pickle", "_csv")
    code = (
        "import gc, sys\nfrom wisepatch.__main__ import main\n"
        f"sys.argv = ['wisepatch', *{words!r}]\ntry:\n    main()\nexcept SystemExit as e:\n    code = e.code\n"
        f"slow = [m for m in {slow!r} if m in sys.modules]\n"
        "files = [m.rpartition('.')[2] for m in sorted(sys.modules) if m.startswith('wisepatch.cli.')]\n"
        "print('loaded', code, slow, [f for f in files if f not in ('app', 'options', 'output')], gc.isenabled())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    own = [] if words == ("--help",) else [words[0]]  # --help ends before the collector of garbage is needed again
    assert out.stdout.splitlines()[-1] == f"loaded 0 [] {own} {bool(own)}"


def test_help_lists_every_command_in_its_own_words(cli):
    from typer.main import get_command

    from wisepatch.cli.app import SECTIONS, app

    group, files = get_command(app), set()
    text = " ".join(cli("--help").stdout.split())
    for section, rows in SECTIONS.items():
        assert f" {section}: " in text
        for name, (file, summary) in rows.items():
            assert group.commands[name].help.replace("\n", " ").startswith(summary.removesuffix(".")), name
            assert f" {name} {summary} " in text.replace("fine- tuned", "fine-tuned")
            files.add(file)
    assert set(group.commands) == set(COMMANDS) == {name for rows in SECTIONS.values() for name in rows}
    folder = Path(sys.modules["wisepatch.cli"].__file__).parent
    assert files == {path.stem for path in folder.glob("*.py")} - {"__init__", "app", "options", "output"}


def test_misspelt_command_and_values_that_do_not_fit_are_usage_errors(cli):
    for words, message in (
        (("dataset",), "No such command 'dataset'. Did you mean 'datasets'?"),
        (("eval",), "Missing argument 'CHECKPOINT...'."),
        (("eval", "zeroshot", "--workers", "many"), "'--workers'"),
        (("eval", "zeroshot", "--workers", "-1"), "'--workers'"),
        (("datasets", "--nothing"), "--nothing"),
    ):
        result = cli(*words)
        assert (result.exit_code, result.stdout) == (2, ""), words
        assert message in result.stderr


def test_values_of_options_reach_commands_from_words_environment_and_defaults(cli, run_store, monkeypatch):
    def kinds(*words):
        return [json.loads(line)["kind"] for line in cli("store", "list", "--json", *words).stdout.splitlines()]

    both = ["zeroshot", "finetuned"]
    assert (kinds(), kinds("--store", run_store.root), kinds("--store", "nowhere")) == (both, both, [])
    monkeypatch.setenv("WISEPATCH_STORE", "nowhere")
    assert (kinds(), kinds("--store", run_store.root)) == ([], both)


TABLES = [
    (("task", "n"), [("MNIST", 10), ("Digits [x]", ""), ("", 7)], 1, 200, True),
    (("a", "", "per cent"), [], None, 200, True),
    (("a", "b"), [("one\ntwo", "x")], None, 200, False),
    (("a", "b"), [("Zürich", "日本")], None, 200, False),
    (("a", "b"), [("word " * 60, "x")], 0, 80, False),
]


@pytest.mark.parametrize(("columns", "rows", "strong", "width", "fits"), TABLES)
def test_tables_look_the_same_with_and_without_rich(capsys, monkeypatch, columns, rows, strong, width, fits):
    from wisepatch.cli.output import Grid, Output

    ways = []
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("wisepatch.cli.output.UNBOUND", 80)
    wrap = Grid.wrap
    monkeypatch.setattr(Grid, "wrap", lambda grid, limit: (ways.append(limit), wrap(grid, limit)))
    Output().table(columns, rows, strong=strong)
    quick = capsys.readouterr().out
    assert ways == ([] if fits else [width])
    monkeypatch.setattr(Grid, "fits", lambda grid, limit: False)
    Output().table(columns, rows, strong=strong)
    assert quick == capsys.readouterr().out
    assert max(map(len, quick.splitlines())) <= width


def test_table_on_a_terminal_is_bold_where_rich_is(capsys):
    from wisepatch.cli.output import Grid

    grid = Grid(("a", "b"), [("1", "x"), ("2", "y")], (True, False), 1)
    bold = [line for line in grid.drawn(bold=True).splitlines() if "\x1b[1m" in line]
    assert [re.sub("\x1b\\[[01]m", "", line) for line in bold] == ["┃ a ┃ b ┃", "│ 2 │ y │"]
    assert "\x1b" not in grid.drawn(bold=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(cli, command):
    result = cli(command, "--help")
    assert result.exit_code == 0
    if command != "store":
        assert f"wisepatch {command}" in result.stdout
    assert "Example" in result.stdout or command == "store"


@pytest.mark.parametrize(
    "words",
    [("store", name) for name in ("list", "verify", "rm", "gc")]
    + [("datasets", "check"), ("plugins", "check"), ("typo-attack", "make"), ("typo-attack", "eval")],
)
def test_every_subcommand_has_help_with_an_example(cli, words):
    result = cli(*words, "--help")
    assert result.exit_code == 0
    assert f"wisepatch {' '.join(words)}" in result.stdout.split("Example")[1]


def test_long_list_of_tasks_is_no_file_name(cli):
    fails(
        cli("zeroshot", "--model", "demo", "--task", ",".join(["Shapes"] * 80 + ["Shpes"])), 2, "unknown task 'Shpes'"
    )


def test_version(cli):
    assert cli("--version").stdout.startswith("wisepatch ")


def test_module_runs_as_program():
    out = subprocess.run(
        [sys.executable, "-m", "wisepatch", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.startswith("wisepatch ")


def fails(result, code, message, hint=""):
    """Check a user error: exit code, one line of error, the hint, no traceback, nothing on stdout."""
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("error: ") or "\nerror: " in result.stderr
    assert message in result.stderr
    assert hint in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


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
        (("finetune", "--task", "Shapes", "--head", "warm"), "head is 'frozen' or 'trained', not 'warm'", ""),
        (
            ("finetune", "--task", "Shapes", "--mixed-precision", "int8"),
            "mixed-precision is 'no', 'bf16' or 'fp16'",
            "",
        ),
        (("eval", "zeroshot", "--task", "Shapes", "--mixed-precision", "int8"), "unknown precision 'int8'", "bf16"),
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
            ("interpolate", "--select", "best-mean", "--select-on", "tset"),
            "selected on val or test, not 'tset'",
            "val or test",
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


def test_empty_class_folder_is_named(cli, shapes):
    (shapes / "square" / "x").mkdir()
    for image in (shapes / "square").glob("*.png"):
        image.unlink()
    fails(cli("zeroshot", "--model", "demo", "--task", shapes), 1, f"class folder {shapes / 'square'} holds no images")


@pytest.mark.parametrize("workers", [0, 1])
def test_image_that_cannot_be_decoded_is_named_and_the_error_stays_one_line(cli, shapes, workers):
    broken_png(shapes / "circle" / "0.png")
    for image in (shapes / "circle").glob("[1-9].png"):
        broken_png(image)
    result = cli("zeroshot", "--model", "demo", "--task", shapes, "--workers", workers)
    assert result.exit_code == 1
    assert "circle/" in result.stderr
    assert "cannot be read" in result.stderr
    assert "Traceback" not in result.stderr


def test_store_that_cannot_be_written(cli, shapes, tmp_path):
    (tmp_path / "file").write_text("")
    result = cli("zeroshot", "--model", "demo", "--task", shapes, "--store", tmp_path / "file" / "store")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert "--store" in result.stderr


def test_damaged_weights_are_an_error(cli, run_store):
    weights = run_store.checkpoints / run_store.find("finetuned").id / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    result = cli("eval", "finetuned", "--task", "Colors")
    assert result.exit_code == 1
    assert "is damaged: model.safetensors" in result.stderr
    verified = cli("store", "verify")
    assert verified.exit_code == 1
    assert "1 of 2 checkpoints are damaged" in verified.stderr


def test_default_model_says_what_could_not_be_fetched_and_how_to_give_weights(cli, shapes, monkeypatch):
    import open_clip.factory

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", refuse)
    result = cli("finetune", "--task", shapes)
    fails(result, 1, "openai weights of ViT-B-32: could not be fetched or read", "--pretrained FILE")
    assert "no route to host" in result.stderr


@pytest.mark.parametrize(
    ("raised", "said", "hint"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0"),
            "GPU's memory ran out: CUDA",
            "--batch-size",
        ),
        (RuntimeError("No executable batch size found, reached zero."), "the GPU's memory ran out", "--batch-size"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"),
            "the GPU's memory ran out",
            "--batch-size",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "the machine's memory ran out",
            "--batch-size",
        ),
        (OSError(12, "Cannot allocate memory"), "the machine's memory ran out", "--workers"),
        (MemoryError(), "the machine's memory ran out", "--workers"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "a process that loads images was killed",
            "--workers",
        ),
    ],
)
def test_memory_that_runs_out_is_one_line_and_says_what_helps(cli, monkeypatch, raised, said, hint):
    def fails(*_, **__):
        raise raised

    monkeypatch.setattr("wisepatch.workflows.patching.zeroshot", fails)
    result = cli("zeroshot", "--model", "demo", "--task", "Shapes")
    assert result.exit_code == 1
    assert said in result.stderr
    assert hint in result.stderr
    assert "Traceback" not in result.stderr


def test_bug_keeps_its_traceback(cli, monkeypatch):
    import wisepatch.plugins

    monkeypatch.setattr(wisepatch.plugins, "registry", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli("datasets")


def test_debug_keeps_the_traceback_of_user_errors_too(cli, monkeypatch):
    from wisepatch.errors import UsageError

    monkeypatch.setenv("WISEPATCH_DEBUG", "1")
    with pytest.raises(UsageError):
        cli("interpolate", "--alpha", "x")


def test_interrupt_exits_130_and_says_what_is_safe(cli, monkeypatch):
    import wisepatch.plugins

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(wisepatch.plugins, "registry", interrupt)
    result = cli("datasets")
    assert result.exit_code == 130
    assert "what is in the store is whole" in result.stderr


def test_finetune_and_interpolate_run_on_mnist_files(cli, data):
    write_mnist(data)
    done = cli("finetune", "--model", "demo", "--task", "MNIST", "--data", data, "--steps", "3", "--batch-size", "8")
    assert done.exit_code == 0, done.output
    assert "demo/MNIST/finetuned" in done.stdout
    swept = cli("interpolate", "--alpha", "0:1:0.1", "--data", data)
    assert swept.exit_code == 0, swept.output
    assert [line.split("│")[1].strip() for line in swept.stdout.splitlines() if line.startswith("│")] == [
        "0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1",
    ]  # fmt: skip
    drawn = cli("plot", "--output", "plot.svg")
    assert drawn.exit_code == 0, drawn.output
    assert "drew 11 points of 1 run to" in drawn.stdout


def test_json_is_one_object_a_line_and_nothing_else_on_stdout(cli, run_store):
    result = cli("interpolate", "--alpha", "0,0.5,1", "--eval", "Colors", "--select", "best-mean", "--json")
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines()]
    rows, last = records[:-1], records[-1]
    assert {row["task"] for row in rows} == {"shapes", "Colors"}
    assert {(row["split"], row["alpha"]) for row in rows if row["task"] == "shapes"} == {
        (split, alpha) for split in ("val", "test") for alpha in (0, 0.5, 1)
    }
    assert set(last) == {"chosen", "checkpoint", "alpha", "rule", "selected_on"}
    assert last["selected_on"] == "val"


def test_choosing_on_test_data_is_labelled(cli, run_store):
    result = cli("interpolate", "--alpha", "0,1", "--eval", "Colors", "--select", "best-mean", "--select-on", "test")
    assert result.exit_code == 0, result.output
    assert "TEST DATA" in result.stdout
    assert "on TEST data" in result.stderr


def test_wide_prints_the_records_of_the_papers(cli, run_store):
    result = cli("interpolate", "--alpha", "0,1", "--eval", "Colors", "--wide")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["alpha"] for record in records] == [0, 1]
    assert {"shapes:top1", "Colors:top1"} <= set(records[0])


def test_quiet_says_nothing_on_stderr(cli, shapes):
    result = cli("zeroshot", "--model", "demo", "--task", shapes, "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "demo/zeroshot" in result.stdout


def test_folder_with_classnames_and_templates(cli, shapes, tmp_path):
    (tmp_path / "names.txt").write_text("round thing\nsquare thing\nthree-cornered thing\n")
    common = ("zeroshot", "--model", "demo", "--task", shapes, "--classnames", tmp_path / "names.txt")
    assert cli(*common, "--template", "a photo of a {}.", "--template", "{}").exit_code == 0
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    fails(cli(*common), 2, "2 class names for 3 classes of 'shapes'", "circle, square, triangle")


def test_two_tasks_of_one_name_are_refused(cli, shapes, tmp_path):
    draw_folder(tmp_path / "other" / "shapes")
    fails(
        cli("zeroshot", "--model", "demo", "--task", f"{shapes},{tmp_path}/other/shapes"),
        2,
        "two tasks are called 'shapes'",
    )


def test_eval_takes_many_checkpoints_and_metrics(cli, run_store):
    result = cli("eval", "zeroshot", "finetuned", "--metric", "top1,macro_f1", "--json")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {(row["task"], row["alpha"], row["metric"]) for row in rows} == {
        (task, alpha, metric) for task in ("shapes", "Colors") for alpha in (0, 1) for metric in ("top1", "macro_f1")
    }


def test_store_commands(cli, run_store):
    listed = [json.loads(line) for line in cli("store", "list", "--json").stdout.splitlines()]
    assert [c["kind"] for c in listed] == ["zeroshot", "finetuned"]
    assert cli("store", "verify").exit_code == 0
    cli("interpolate", "--alpha", "0.5", "--eval", "Colors")
    refused = cli("store", "rm", "finetuned")
    fails(refused, 1, "1 recipes are mixed from", "--recipes")
    gone = cli("store", "rm", "finetuned", "--recipes")
    assert gone.stdout.count("removed") == 2
    (run_store.checkpoints / ".partial-99999999-x").mkdir()
    assert "removed 1 files and folders" in cli("store", "gc").stdout


def test_damaged_manifest_is_reported_and_the_rest_goes_on(cli, run_store):
    (run_store.checkpoints / run_store.find("finetuned").id / "manifest.json").write_text("{")
    assert cli("store", "list").exit_code == 0
    assert cli("eval", "zeroshot", "--task", "Colors").exit_code == 0
    verified = cli("store", "verify")
    assert verified.exit_code == 1
    assert "manifest.json is not a manifest of this version" in verified.stderr
    (run_store.checkpoints / "stray").write_text("")
    assert cli("store", "gc").exit_code == 0


def test_several_checkpoints_are_removed_by_one_command_or_none(cli, run_store):
    cli("interpolate", "--alpha", "0.5", "--eval", "Colors", "--select", "best-mean")
    fails(cli("store", "rm", "zeroshot", "--recipes"), 1, "was trained from", "or name both")
    fails(cli("store", "rm", "finetuned", "nonesuch", "--recipes"), 2, "unknown checkpoint 'nonesuch'")
    assert len(run_store.everything()) == 4
    gone = cli("store", "rm", "finetuned", "patched", "zeroshot", "--recipes")
    assert (gone.exit_code, gone.stdout.count("removed")) == (0, 4)
    assert run_store.everything() == []


def test_one_flipped_bit_in_a_cached_head_changes_nothing_and_is_named(cli, run_store):
    before = cli("eval", "zeroshot", "--task", "Colors", "--json").stdout.splitlines()
    for path in (run_store.root / "cache" / "heads").glob("*/tensors.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 64
        path.write_bytes(content)
    verified = cli("store", "verify")
    assert verified.exit_code == 1
    assert "error: 2 cached entries or files of predictions are damaged" in verified.stderr
    again = cli("eval", "zeroshot", "--task", "Colors")
    assert [json.loads(line)["value"] for line in before] == [
        json.loads(line)["value"] for line in cli("eval", "zeroshot", "--task", "Colors", "--json").stdout.splitlines()
    ]
    assert again.exit_code == 0
    assert "it is made again" in again.stderr


def test_store_that_is_not_there_is_not_called_whole(cli):
    fails(cli("store", "verify", "--store", "nowhere"), 1, "there is no store at nowhere", "--store")


def test_names_with_commas_can_be_given(cli, run_store):
    recipe = Recipe("linear", (run_store.find("zeroshot").id,), {})
    run_store.save(None, kind="patched", name="a, b", model={"model": "demo", "pretrained": ""}, recipe=recipe)
    assert "removed a, b" in cli("store", "rm", "a, b").stdout


def test_json_holds_no_nan(cli, run_store):
    cli("interpolate", "--alpha", "0,1", "--eval", "")
    for line in cli("plot", "--json").stdout.splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_datasets_lists_and_says_whether_the_data_is_there(cli, tmp_path):
    write_mnist(tmp_path / "data")
    records = {r["name"]: r for r in map(json.loads, cli("datasets", "--data", "data", "--json").stdout.splitlines())}
    assert {"Shapes", "Digits", "MNIST", "CIFAR100", "STL10", "SVHN", "FashionMNIST", "GTSRB"} <= set(records)
    assert (records["Shapes"]["data"], records["MNIST"]["data"], records["GTSRB"]["data"]) == ("built in", "yes", "no")
    assert (len(records["GTSRB"]["classes"]), records["GTSRB"]["splits"]) == (43, ["train", "val", "test"])


def test_datasets_show_tells_what_is_known(cli):
    text = cli("datasets", "show", "gtsrb").stdout
    for part in (
        "GTSRB",
        "traffic sign",
        "32.6 % ViT-B-32 openai",
        "gtsrb/{GTSRB/Training",
        "https://",
        "43 classes",
        "23976 train",
    ):
        assert part in text
    (record,) = map(json.loads, cli("datasets", "show", "GTSRB", "--json").stdout.splitlines())
    assert record["zeroshot"]["ViT-L-14 openai"] == 0.5055
    assert record["downloads"]


def test_datasets_check_counts_images_and_classes(cli, shapes):
    checked = [json.loads(line) for line in cli("datasets", "check", shapes, "--json").stdout.splitlines()]
    assert [(c["split"], c["images"], c["expected"]) for c in checked] == [
        ("train", 12, None), ("val", 3, None), ("test", 3, None),
    ]  # fmt: skip
    assert checked[0]["per_class"] == {
        f"{i} {name}": 4 for i, name in enumerate(sorted(p.name for p in shapes.iterdir()))
    }
    assert checked[0]["sample"].startswith("64 x 64, ")


def test_datasets_check_goes_on_after_a_task_that_is_not_there(cli, data):
    result = cli("datasets", "check", "ImageNetA", "Digits@test", "MNIST", "--data", data, "--json")
    assert result.exit_code == 1
    (record,) = map(json.loads, result.stdout.splitlines())
    assert (record["task"], record["images"]) == ("Digits", 500)
    assert "error: ImageNetA is not below" in result.stderr
    assert "error: MNIST is not below" in result.stderr
    assert "`wisepatch datasets download MNIST` fetches it" in result.stderr  # a look fetches nothing
    assert not list(data.iterdir())


def test_datasets_check_names_classes_without_images(cli, data):
    draw_folder(data / "imagenet-a", classes=("circle",))
    (data / "imagenet-a" / "circle").rename(data / "imagenet-a" / "n01498041")
    result = cli("datasets", "check", "imagenet-a", "--data", data)
    assert result.exit_code == 0
    assert "note: ImageNetA (test) has 6 images, its publisher 7500" in result.stderr
    assert "note: ImageNetA (test) has no images of " in result.stderr
    assert "stingray" not in result.stderr
    assert "and 194 more" in result.stderr


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


def test_datasets_check_names_sizes_that_differ_from_the_published_ones(cli, tmp_path):
    write_mnist(tmp_path / "data", train=40, test=20)
    result = cli("datasets", "check", "MNIST", "--data", "data")
    assert result.exit_code == 0
    assert "note: MNIST (test) has 20 images, its publisher 10000" in result.stderr


def test_datasets_check_deep_names_every_broken_file(cli, shapes):
    victims = sorted(shapes.rglob("*.png"))
    for path in (victims[1], victims[-2]):
        broken_png(path)
    result = cli("datasets", "check", shapes, "--deep")
    assert result.exit_code == 1
    assert "error: 2 images cannot be read" in result.stderr
    for path in (victims[1], victims[-2]):
        assert f"image {path} cannot be read: " in result.stderr
    assert "images per class" in result.stdout
    broken_png(victims[0])


def test_datasets_check_deep_counts_what_plain_checking_cannot(cli, monkeypatch):
    monkeypatch.setattr("wisepatch.datasets.inspection.labels_of", lambda samples: None)
    assert "? (--deep counts)" in cli("datasets", "check", "Digits@val").stdout
    (record,) = map(json.loads, cli("datasets", "check", "Digits@val", "--deep", "--json").stdout.splitlines())
    assert sum(record["per_class"].values()) == record["images"] == record["expected"] == 129


def test_datasets_download_asks_torchvision_or_says_where_to_get_it(cli, shapes, monkeypatch, tmp_path):
    import torchvision.datasets.utils

    asked = []

    def refuse(url, *args, **kwargs):
        asked.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.utils, "_get_redirect_url", refuse)
    result = cli("datasets", "download", "GTSRB", "--data", "data")
    assert result.exit_code == 1
    assert "GTSRB is not below data and could not be downloaded: " in result.stderr
    assert asked
    assert "GTSRB" in asked[0]
    refused = cli("datasets", "download", "Cars,Shapes", shapes)
    assert refused.exit_code == 2
    assert "error: Cars cannot be downloaded by wisepatch" in refused.stderr
    assert "stanford_cars" in refused.stderr
    assert refused.stdout == "Shapes is there without a download\nshapes is there without a download\n"
    nowhere = cli("datasets", "download", "GTSRB", "--data", shapes / "circle" / "0.png")
    assert nowhere.exit_code == 2
    assert "cannot be made: " in nowhere.stderr
    write_mnist(tmp_path / "data")
    assert cli("datasets", "download", "MNIST", "--data", "data").stdout == "MNIST is below data\n"


def test_broken_line_of_results_is_reported_by_number_and_the_rest_drawn(cli, run_store):
    cli("interpolate", "--alpha", "0,0.5,1", "--eval", "Colors")
    lines = run_store.results.read_text().splitlines()
    run_store.results.write_text("\n".join([lines[0], '{"run": "x", "val', *lines[1:]]) + "\n")
    result = cli("plot", "--output", "plot.png")
    assert result.exit_code == 0, result.output
    assert "line 2 is not a result" in result.stderr
    assert "drew 3 points" in result.stdout

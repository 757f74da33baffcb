"""The program: its help, what it loads, and the boundary where errors become words."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HEAVY = ("torch", "torchvision", "open_clip", "accelerate", "pandas", "matplotlib", "sklearn", "timm", "numpy")


COMMANDS = (
    "demo", "patch", "zeroshot", "finetune", "interpolate", "merge", "eval", "predict", "compare", "select", "plot", "report",
    "typo-attack", "datasets", "import", "export", "store", "plugins",
)  # fmt: skip


def heavy_after(*words):
    """Run the program in a process of its own; its exit code, and which heavy libraries it loaded."""
    code = (
        "import sys\nfrom wisepatch.cli.app import app\n"
        f"try:\n    app({list(words)!r})\nexcept SystemExit as e:\n    code = e.code\n"
        f"print('loaded', code, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
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
        (("interpolate", "--select", "worst"), 2),
        (("patch", "--task", "Shapes", "--steps", "0"), 2),
        (("finetune", "--task", "Shapes", "--head", "warm"), 2),
        (("eval",), 2),
        (("compare", "--help"), 0),
        (("dataset",), 2),
    ],
)
def test_help_listings_and_usage_errors_load_nothing_heavy(words, code):
    assert heavy_after(*words) == f"loaded {code} []"


@pytest.mark.parametrize("words", [("datasets",), ("store", "list", "--json"), ("plugins",)])
def test_a_listing_loads_no_other_command(words):
    code = (
        "import sys\nfrom wisepatch.__main__ import main\nfrom wisepatch.cli.app import COMMANDS\n"
        f"sys.argv = ['wisepatch', *{words!r}]\ntry:\n    main()\nexcept SystemExit as e:\n    code = e.code\n"
        "files = [m.rpartition('.')[2] for m in sorted(sys.modules) if m.startswith('wisepatch.cli.')]\n"
        "print('loaded', code, [f for f in files if f in {file for file, _ in COMMANDS.values()}])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert out.stdout.splitlines()[-1] == f"loaded 0 {[words[0]]}"


def test_help_lists_every_command_in_its_own_words(cli):
    from typer.main import get_command

    from wisepatch.cli.app import COMMANDS as KNOWN
    from wisepatch.cli.app import app

    group = get_command(app)
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", cli("--help").stdout).split())
    sections = [section for _, section in KNOWN.values()]
    assert [section for section in dict.fromkeys(sections) if f" {section} " in text] == list(dict.fromkeys(sections))
    for name in KNOWN:
        summary = group.get_command(None, name).help.split("\n\n")[0].replace("\n", " ").replace("`", "")
        assert f" {name} {summary}" in text
    assert set(group.list_commands(None)) == set(COMMANDS) == set(KNOWN)
    folder = Path(sys.modules["wisepatch.cli"].__file__).parent
    beside = {
        "__init__", "app", "completion", "datasets_check", "merge_tables", "model_table", "objectives", "option_groups", "options",
        "output", "plan", "plot_kinds", "plot_options", "processes", "results", "settings", "tables", "words",
    }  # fmt: skip
    files = {path.stem for path in folder.glob("*.py")} - beside
    assert {file for file, _ in KNOWN.values()} == files


def test_misspelt_command_and_values_that_do_not_fit_are_usage_errors(cli):
    for words, message in (
        (("dataset",), "No such command 'dataset'. Did you mean 'datasets'?"),
        (("eval",), "Missing argument 'CHECKPOINT"),
        (("eval", "zeroshot", "--workers", "many"), "'--workers'"),
        (("eval", "zeroshot", "--workers", "-1"), "'--workers'"),
        (("datasets", "--nothing"), "--nothing"),
    ):
        result = cli(*words)
        assert (result.exit_code, result.stdout) == (2, ""), words
        assert message in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(cli, command):
    result = cli(command, "--help")
    assert result.exit_code == 0
    assert f"wisepatch {command}" in result.stdout
    assert "Example" in result.stdout


@pytest.mark.parametrize(
    "words",
    [("store", name) for name in ("list", "verify", "rm", "gc")]
    + [("store", "show"), ("store", "diff"), ("datasets", "check"), ("plugins", "check")]
    + [("typo-attack", "make"), ("typo-attack", "eval"), ("datasets", "show"), ("datasets", "download")],
)
def test_every_subcommand_has_help_with_an_example(cli, words):
    result = cli(*words, "--help")
    assert result.exit_code == 0
    assert f"wisepatch {' '.join(words)}" in result.stdout.split("Example")[1]


@pytest.mark.parametrize("words", [(), *((command,) for command in COMMANDS), ("store", "diff"), ("datasets", "check")])
def test_help_names_types_in_words(cli, words):
    text = cli(*words, "-h").stdout
    assert text == cli(*words, "--help").stdout
    for python in ("<", "list[", "bool", " str ", " int "):
        assert python not in text, text
    if words and words[0] in ("patch", "finetune"):
        for word in ("TEXT", "PATH", "NUMBER", "frozen|trained"):
            assert word in text


@pytest.mark.parametrize("words", [("patch",), ("store",), ("store", "list"), ("datasets", "check", "nothing")])
def test_version_is_told_everywhere(cli, words):
    assert cli(*words, "--version").stdout == cli("--version").stdout


def test_version(cli):
    assert cli("--version").stdout.startswith("wisepatch ")


def test_module_runs_as_program():
    out = subprocess.run(
        [sys.executable, "-m", "wisepatch", "--version"], capture_output=True, text=True, check=True, timeout=300
    )
    assert out.stdout.startswith("wisepatch ")


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


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("datasets", "check", "Nope"), 2, "unknown task 'Nope'"),
        (("eval",), 2, "Missing argument 'CHECKPOINT'."),
        (("eval", "zeroshot", "--workers", "many"), 2, "Invalid value for '--workers'"),
        (("dataset",), 2, "No such command 'dataset'"),
        (("--nothing", "eval"), 2, "No such option: --nothing"),
        (("eval", "zeroshot", "--task", "Shapes"), 1, "no zero-shot checkpoint in the store"),
        (("datasets", "show", "x" * 300), 2, "unknown task 'xxx"),
        (("store", "list", "--store", "x" * 300), 1, "name too long"),
    ],
)
def test_errors_are_json_too_where_json_is_asked_for(cli, words, code, message):
    result = cli(*words, "--json")
    assert result.exit_code == code
    (record,) = map(json.loads, result.stdout.splitlines())
    assert record["error"].startswith(message) or message in record["error"]
    assert (record["exit_code"], bool(record["hint"])) == (code, True)
    assert f"error: {record['error']}" in result.stderr


def test_an_interrupt_is_json_too(cli, monkeypatch):
    import wisepatch.plugins

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(wisepatch.plugins, "registry", interrupt)
    result = cli("datasets", "--json")
    assert result.exit_code == 130
    assert json.loads(result.stdout)["exit_code"] == 130


def test_a_file_that_ends_too_soon_is_a_bug_and_not_an_aborted_program(cli, monkeypatch):
    import wisepatch.plugins

    def ended():
        raise EOFError("Ran out of input")

    monkeypatch.setattr(wisepatch.plugins, "registry", ended)
    with pytest.raises(RuntimeError, match="a file ended too soon: Ran out of input"):
        cli("datasets")


def program(words, **streams):
    """The program in a process of its own, with its streams as they are given."""
    return subprocess.Popen([sys.executable, "-m", "wisepatch", *words], stderr=subprocess.PIPE, text=True, **streams)


@pytest.mark.parametrize("words", [("datasets", "--json"), ("datasets",), ("--help",)])
def test_nobody_who_reads_ends_the_program_without_a_word(words):
    reading, writing = os.pipe()
    os.close(reading)
    run = program(words, stdout=writing)
    os.close(writing)
    assert (run.communicate(timeout=300)[1], run.returncode) == ("", 1)


@pytest.mark.parametrize("words", [("datasets", "--json"), ("datasets",)])
def test_a_full_disk_below_the_output_is_an_error(words):
    with Path("/dev/full").open("w") as full:
        run = program(words, stdout=full)
    said = run.communicate(timeout=300)[1]
    assert said.startswith("error: the output cannot be written: No space left on device\nhint: ")
    assert "Traceback" not in said
    assert run.returncode == 1


def test_an_output_that_was_closed_before_takes_nothing():
    run = program(("datasets",), preexec_fn=lambda: os.close(1))
    assert (run.communicate(timeout=300)[1], run.returncode) == ("", 0)


@pytest.mark.parametrize(
    "words",
    [
        ("eval", "zeroshot", "--task", "Shapes", "--data", "~nouser"),
        ("eval", "zeroshot", "--task", "Shapes", "--store", "~nouser/a"),
        ("eval", "~nouser", "--task", "Shapes"),
        ("eval", "zeroshot", "--task", "~nouser"),
        ("datasets", "download", "MNIST", "--data", "~nouser"),
        ("store", "list", "--store", "~nouser"),
        ("export", "finetuned", "~nouser"),
        ("plot", "~nouser"),
        ("typo-attack", "make", "--task", "Shapes", "--output", "out", "--font", "~nouser"),
        ("interpolate", "--eval", "~nouser"),
        ("zeroshot", "--model", "local-dir:~nouser", "--task", "Shapes"),
        ("zeroshot", "--model", "ViT-B-32", "--pretrained", "~nouser", "--task", "Shapes"),
    ],
)
def test_the_home_of_nobody_is_a_user_error(cli, run_store, words):
    result = cli(*words)
    assert result.exit_code in (1, 2)
    assert "error: " in result.stderr
    assert "~nouser" in result.stderr
    assert "Traceback" not in result.output
    assert not list(run_store.root.parent.glob("~*"))


@pytest.mark.parametrize(
    "words",
    [
        ("eval", "LONG", "--task", "Shapes"),
        ("eval", "zeroshot", "--task", "LONG"),
        ("eval", "zeroshot", "--task", "Shapes", "--data", "LONG"),
        ("eval", "zeroshot", "--task", "Shapes", "--store", "LONG"),
        ("interpolate", "--checkpoint", "LONG"),
        ("interpolate", "--eval", "LONG"),
        ("finetune", "--model", "demo", "--task", "LONG"),
        ("finetune", "--model", "demo", "--task", "Shapes", "--supported", "LONG"),
        ("finetune", "--task", "Shapes", "--from", "LONG"),
        ("zeroshot", "--model", "LONG", "--task", "Shapes"),
        ("zeroshot", "--model", "demo", "--task", "Shapes", "--classnames", "LONG"),
        ("plot", "LONG"),
        ("plot", "--output", "LONG.png"),
        ("export", "finetuned", "LONG"),
        ("store", "rm", "LONG"),
        ("store", "list", "--store", "LONG"),
    ],
)
def test_a_name_of_300_letters_is_a_user_error(cli, run_store, words):
    result = cli(*(word.replace("LONG", "x" * 300) for word in words))
    assert result.exit_code in (1, 2)
    assert "error: " in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_of_several_processes_the_main_one_alone_does_what_is_not_shared(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    attack = ("typo-attack", "make", "--task", "Shapes", "--output", tmp_path / "attacked")
    for words in (("store", "list"), ("datasets", "--json"), ("plot",), attack):
        result = cli(*words)
        assert (result.exit_code, result.output) == (0, "")
    assert not (tmp_path / "attacked").exists()
    monkeypatch.setenv("RANK", "0")
    assert "MNIST" in cli("datasets").output
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("RANK", "1")  # of something else
    assert "MNIST" in cli("datasets").output


def test_of_several_processes_on_a_machine_one_says_what_is_wrong_before_they_meet(cli, monkeypatch):
    monkeypatch.setattr("wisepatch.process_group.SECONDS_TO_SPEAK", 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, said in (("0", "error: WORLD_SIZE is 2, and MASTER_ADDR, MASTER_PORT not set"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        result = cli("eval", "zeroshot", "--task", "Shapes")
        assert (result.exit_code, result.output.partition("\n")[0]) == (2, said)


def test_a_number_of_processes_that_is_not_the_launcher_s_is_refused(cli, monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    result = cli("eval", "zeroshot", "--processes", "3")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: --processes 3, and a launcher has started 2\nhint: leave it out\n" in result.stderr


def test_standard_output_is_the_main_process_s():
    for rank, printed in (("0", "wisepatch "), ("1", "")):
        out = subprocess.run(
            [sys.executable, "-m", "wisepatch", "--version"], capture_output=True, text=True, check=True, timeout=300,
            env={**os.environ, "WORLD_SIZE": "2", "RANK": rank},
        )  # fmt: skip
        assert out.stdout[: len("wisepatch ")] == printed

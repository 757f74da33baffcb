"""The README is true: its commands run, its tree is the tree, its plugin works."""

import re
import shlex
import subprocess
from importlib.metadata import EntryPoint, metadata
from pathlib import Path

import pytest

from wisepatch.plugins import collect

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands():
    """The wisepatch commands of all console blocks, as lists of words."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ wisepatch ")]
    return [shlex.split(line)[1:] for line in lines]


def python_blocks():
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_description_of_the_package_has_no_links_into_the_tree():
    description = metadata("wisepatch")["Description"]
    assert "](.github" in README
    assert re.findall(r"\]\((?!https?:|#)[^)]*\)", description) == []
    assert "*Picture: Accuracy on handwritten digits" in description


def test_commands_are_understood():
    import typer.main

    from wisepatch.cli.app import app

    group = typer.main.get_command(app)
    assert len(commands()) >= 6
    for words in commands():
        command, rest = group.get_command(None, words[0]), words[1:]
        while getattr(command, "commands", None) and rest and rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(words[0], rest)


def test_set_up_commands_are_the_first_two_of_their_kind():
    found = re.findall(r"^[$ ]*(python3 -m venv .*)$", README, re.MULTILINE)
    assert found == [
        "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/wisepatch demo",
        'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/pytest -n 2',
    ]


def test_tree_has_a_line_for_every_room():
    rooms = {p.name for p in (ROOT / "wisepatch").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    tree = re.search(r"```text\n(wisepatch/.*?)```", README, re.DOTALL).group(1)
    written = set(re.findall(r"^  (\w+(?:\.py|(?=/)))", tree, re.MULTILINE))
    assert written == rooms
    assert all(len(line.split(None, 1)) == 2 for line in tree.splitlines())


def test_pictures_are_there():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file()


def test_plugin_of_the_readme_works(tmp_path, monkeypatch):
    plugin = next(block for block in python_blocks() if "hookimpl" in block)
    (tmp_path / "readme_plugin.py").write_text(plugin)
    monkeypatch.syspath_prepend(tmp_path)
    known = collect([EntryPoint("pets", "readme_plugin", "wisepatch")])
    (name,) = known.plugins[0].names("register_datasets")
    from PIL import Image

    for split in ("train", "test"):
        for label in known.datasets[name].classes:
            (tmp_path / "pets" / split / label).mkdir(parents=True)
            for index in range(2):
                Image.new("RGB", (8, 8)).save(tmp_path / "pets" / split / label / f"{index}.jpg")
    opened = known.datasets[name].split("test", tmp_path)
    assert len(opened) == 2 * len(opened.classes)
    assert opened[0][0].size == (8, 8)


def test_library_example_runs_as_far_as_its_names():
    example = next(block for block in python_blocks() if "wp.patch(" in block)
    compile(example, "README", "exec")
    import wisepatch as wp

    for name in re.findall(r"wp\.(\w+)", example):
        assert hasattr(wp, name), name


@pytest.mark.slow
def test_tour_runs_as_it_stands(cli, tmp_path, monkeypatch):
    from wisepatch.datasets import demo

    monkeypatch.setattr(demo, "SIZES", {"train": 60, "val": 20, "test": 20})
    monkeypatch.setenv("WISEPATCH_STORE", str(tmp_path / "store"))
    from tests.samples import draw_folder

    draw_folder(tmp_path / "photos", per_class=10)
    for words in commands():
        if words[0] in ("demo", "import") or {
            "download",
            "CIFAR10,STL10",
            "FashionMNIST",
            "A",  # of models to merge
            "first,second",  # runs of other names
            "ImageNetV2,ImageNetR",
            "transformers",
        } & set(words):
            continue
        result = cli(*words)
        assert result.exit_code == 0, (words, result.output)
    assert (tmp_path / "plot.png").exists()


def test_nothing_of_the_tree_is_left_out_of_version_control():
    out = subprocess.run(
        ["git", "status", "--porcelain", "--ignored"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    ignored = [
        line
        for line in out.stdout.splitlines()
        if line.startswith("!!") and re.search(r"wisepatch/.*\.(py|json|safetensors)$", line)
    ]
    assert not ignored

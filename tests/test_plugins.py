"""Plugins: found, looked up, skipped with a reason, refused with the owners' names."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from wisepatch.entrypoints import EntryPoint, entry_points

import wisepatch
from wisepatch.errors import DataError, PluginError, UnknownNameError
from wisepatch.plugins import BUILTIN, collect, find_task, registry

PLUGINS = Path(__file__).parents[1] / "plugins"
ROOT = Path(wisepatch.__file__).parent / "datasets"

GOOD = """
import wisepatch as wp

@wp.hookimpl
def register_datasets():
    return [wp.Dataset(name="Pets", classes=("cat", "dog"), open=None)]
"""


def load(tmp_path, monkeypatch, **modules):
    """Collect from plugins written as modules of their own."""
    monkeypatch.syspath_prepend(tmp_path)
    pairs = []
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        pairs.append((metadata.EntryPoint(name, name, "wisepatch"), f"dist-{name} 1.0"))
    return collect(pairs)


def test_builtin_datasets_are_those_of_the_builtin_modules():
    known = registry()
    assert set(known.owners.values()) == {"wisepatch"}
    assert {"Shapes", "Digits", "MNIST", "CIFAR10", "GTSRB"} < set(known.datasets)
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in ROOT.rglob("*.py")}
    assert {name for name, text in modules.items() if "def datasets()" in text} == set(BUILTIN)


def test_installed_plugins_are_found_as_importlib_metadata_finds_them(tmp_path, monkeypatch):
    """Each folder of metadata is written as pip (or setuptools) writes it."""
    import importlib.metadata

    def installed(place, folder, name, entry_points, about="METADATA"):
        (tmp_path / place / folder).mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\nSummary: x\n\nName: no\nVersion: 9\n"
        (tmp_path / place / folder / about).write_text(text)
        if entry_points is not None:
            (tmp_path / place / folder / "entry_points.txt").write_text(entry_points)

    group = "[wisepatch]\n"
    installed(
        "a", "one_two-1.2.dist-info", "one-two", f"[console_scripts]\nx = y:z\n\n{group}pets = pets\n\n[other]\nq = r\n"
    )
    installed("a", "plain-1.2.dist-info", "plain", None)
    installed("a", "near-1.2.dist-info", "near", "[wisepatch.more]\nnot = this\n")
    installed("a", "empty-1.2.dist-info", "empty", group)
    installed("b", "old.egg-info", "old", f"{group}# a comment\nolder = old.module:inner.name\nb=c\n", "PKG-INFO")
    installed("b", "one_two-1.2.dist-info", "one-two", f"{group}pets = pets\n")
    (tmp_path / "archive.zip").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path / name) for name in ("a", "b", "nowhere", "archive.zip", "a")])
    found = entry_points("wisepatch")
    assert [(entry.name, entry.value, owner) for entry, owner in found] == [
        ("b", "c", "old 1.2"),
        ("older", "old.module:inner.name", "old 1.2"),
        ("pets", "pets", "one-two 1.2"),
    ]
    expected = importlib.metadata.entry_points(group="wisepatch")
    assert {(entry.name, entry.value) for entry, _ in found} == {(entry.name, entry.value) for entry in expected}


def test_entry_point_may_name_a_thing_in_a_module():
    for value in ("os", "os:path", "os:path.join", "os.path : join", "os:path [extra]"):
        assert EntryPoint("x", value).load() is metadata.EntryPoint("x", value, "wisepatch").load(), value
    with pytest.raises(AttributeError):
        EntryPoint("x", "os:nothing").load()


def test_plugin_is_registered_with_its_owner(tmp_path, monkeypatch):
    known = load(tmp_path, monkeypatch, good=GOOD)
    assert known.owners["Pets"] == "plugin 'good' (dist-good 1.0)"
    assert known.plugins[0].datasets == ("Pets",)


def test_plugin_that_fails_to_load_is_named_and_skipped(tmp_path, monkeypatch):
    known = load(tmp_path, monkeypatch, broken="import nothing_of_this_name", good=GOOD)
    assert "Pets" in known.datasets
    assert known.plugins[0].problem == "ModuleNotFoundError: No module named 'nothing_of_this_name'"


def test_skipped_plugin_is_mentioned_when_a_name_is_not_found(tmp_path, monkeypatch):
    import wisepatch.plugins

    known = load(tmp_path, monkeypatch, broken="1/0")
    monkeypatch.setattr(wisepatch.plugins, "registry", lambda: known)
    with pytest.raises(UnknownNameError) as caught:
        find_task("Pets")
    assert "plugins that failed to load: broken (ZeroDivisionError: division by zero)" in caught.value.hint


def test_task_of_an_own_plugin_that_failed_to_load_is_not_said_to_lack_installation(monkeypatch):
    import wisepatch.plugins
    from wisepatch.plugins import Plugin

    known = registry()
    without = {name: dataset for name, dataset in known.datasets.items() if name != "USPS"}
    bare = known._replace(datasets=without, plugins=())
    monkeypatch.setattr(wisepatch.plugins, "registry", lambda: bare)
    with pytest.raises(DataError, match="is of the plugin wisepatch-usps, which is not installed"):
        find_task("USPS")
    failed = bare._replace(plugins=(Plugin("usps", "wisepatch-usps 0.1.0", problem="OSError: no disk"),))
    monkeypatch.setattr(wisepatch.plugins, "registry", lambda: failed)
    with pytest.raises(UnknownNameError) as caught:
        find_task("USPS")
    assert "plugins that failed to load: usps (OSError: no disk)" in caught.value.hint


def test_misspelt_hook_is_an_error_that_names_the_owner(tmp_path, monkeypatch):
    with pytest.raises(PluginError, match=r"plugin 'bad' \(dist-bad 1\.0\) does not fit the hooks") as caught:
        load(tmp_path, monkeypatch, bad=GOOD.replace("register_datasets", "register_dataset"))
    assert "register_dataset" in caught.value.message


def test_name_taken_twice_names_both_owners(tmp_path, monkeypatch):
    with pytest.raises(PluginError) as caught:
        load(tmp_path, monkeypatch, one=GOOD, two=GOOD.replace("Pets", "pets"))
    assert (
        "'pets' is taken twice: by plugin 'one' (dist-one 1.0) and by plugin 'two' (dist-two 1.0)"
        in caught.value.message
    )


def test_name_of_a_builtin_cannot_be_taken(tmp_path, monkeypatch):
    with pytest.raises(PluginError, match="'mnist' is taken twice: by wisepatch and by plugin 'one'"):
        load(tmp_path, monkeypatch, one=GOOD.replace("Pets", "mnist"))


def test_hook_that_gives_something_else_is_an_error(tmp_path, monkeypatch):
    text = GOOD.replace('wp.Dataset(name="Pets", classes=("cat", "dog"), open=None)', '"Pets"')
    with pytest.raises(PluginError, match="register_datasets gave a str"):
        load(tmp_path, monkeypatch, one=text)


@pytest.mark.slow
def test_usps_plugin_from_its_wheel_is_used_by_the_installed_program(tmp_path):
    """Build the wheel, install it into a folder of its own, and let the program find it there."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    source = shutil.copytree(PLUGINS / "wisepatch-usps", tmp_path / "source")
    build = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", tmp_path / "wheels", source]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = (tmp_path / "wheels").glob("wisepatch_usps-*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel], check=True, timeout=300
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "WISEPATCH_PLUGINS": "1"}
    program = Path(sys.executable).with_name("wisepatch")

    def run(*words):
        done = subprocess.run(
            [program, *words, "--json"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    assert {"name": "usps", "distribution": "wisepatch-usps 0.1.0", "datasets": ["USPS"], "problem": ""} in run(
        "plugins"
    )
    tests = importlib.util.spec_from_file_location("test_usps", PLUGINS / "wisepatch-usps" / "tests" / "test_usps.py")
    module = importlib.util.module_from_spec(tests)
    tests.loader.exec_module(module)
    module.write_usps(tmp_path / "data")
    (row,) = run("zeroshot", "--model", "demo", "--task", "usps", "--data", "data")
    assert (row["task"], row["n"], row["split"]) == ("USPS", 10, "test")
    assert "USPS" in {record["name"] for record in run("datasets")}


SCHEMED = """
import wisepatch as wp

@wp.hookimpl
def find_dataset(name):
    scheme, _, rest = name.partition(":")
    if scheme != "toy":
        return None
    return "nothing" if rest == "bad" else wp.Dataset(name=name, classes=("cat", "dog"), open=None)
"""


def test_names_with_a_scheme_are_found_by_the_plugin_that_knows_it(tmp_path, monkeypatch):
    known = load(tmp_path, monkeypatch, schemed=SCHEMED)
    monkeypatch.setattr("wisepatch.plugins.registry", lambda: known)
    found = find_task("toy:owner/name@val", ["kitten", "puppy"])
    assert (found.spec, found.name, found.split) == ("toy:owner/name@val", "toy:owner/name", "val")
    assert found.dataset.classes == ("kitten", "puppy")
    with pytest.raises(PluginError, match=r"plugin 'schemed' .*: find_dataset gave a str"):
        find_task("toy:bad")
    with pytest.raises(DataError, match="no plugin knows what hf: means in the task 'hf:a/b'") as caught:
        find_task("hf:a/b")
    assert caught.value.hint == "install wisepatch-huggingface"


def test_aliases_find_their_task_and_clash_like_names(tmp_path, monkeypatch):
    aliased = GOOD.replace("open=None", "open=None, aliases=('OxfordPets',)")
    known = load(tmp_path, monkeypatch, aliased=aliased)
    monkeypatch.setattr("wisepatch.plugins.registry", lambda: known)
    assert (find_task("oxfordpets").name, find_task("OxfordPetsVal").split) == ("Pets", "val")
    with pytest.raises(PluginError, match=r"the alias 'mnist' of 'Pets' .* is taken by wisepatch"):
        load(tmp_path, monkeypatch, taken=GOOD.replace("open=None", "open=None, aliases=('mnist',)"))


def test_plugin_whose_hook_fails_is_named_and_skipped(tmp_path, monkeypatch):
    known = load(
        tmp_path,
        monkeypatch,
        alone=GOOD.replace("[wp", "(wp").replace("None)]", "None))"),
        bad=GOOD.replace("open=None", "open=None, templates=('a photo',)"),
    )
    assert [(p.name, p.problem.partition(":")[0]) for p in known.plugins] == [
        ("alone", "TypeError"),
        ("bad", "UsageError"),
    ]
    assert "Pets" not in known.datasets

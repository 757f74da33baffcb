"""Plugins: loaded one by one, skipped whole with a reason, and used for real."""

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import wisepatch as wp
from wisepatch.errors import DataError, PluginError, UnknownNameError
from wisepatch.plugins import Registry, collect, registry
from wisepatch.tasks import FAMILIES, find_task
from wisepatch.testing import inspect_plugin

PLUGINS = Path(__file__).parents[1] / "plugins"
DATASETS = Path(wp.__file__).parent / "datasets"

GOOD = """
import wisepatch as wp

@wp.hookimpl
def register_datasets():
    return [wp.Dataset(name="Pets", classes=("cat", "dog"), open=None)]
"""
SCHEMED = """
import wisepatch as wp

@wp.hookimpl
def find_dataset(name):
    scheme, _, rest = name.partition(":")
    if scheme != "toy":
        return None
    if rest == "broken":
        raise KeyError(rest)
    return "nothing" if rest == "bad" else wp.Dataset(name=name, classes=("cat", "dog"), open=None)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Write plugins, each a module with its distribution ``dist-NAME 1.0``, and return their entry points."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)

    def write(**modules):
        for name, text in modules.items():
            about = site / f"dist_{name}-1.0.dist-info"
            about.mkdir(parents=True)
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: 1.0\n")
            (about / "entry_points.txt").write_text(f"[wisepatch]\n{name} = plugin_{name}\n")
            (site / f"plugin_{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, f"plugin_{name}", raising=False)
        return [each for owner in metadata.distributions(path=[str(site)]) for each in owner.entry_points]

    return write


@pytest.fixture
def used(install, monkeypatch):
    """Write plugins, and let the program find them as it finds installed ones."""

    def use(**modules):
        install(**modules)
        monkeypatch.setenv("WISEPATCH_PLUGINS", "1")
        registry.cache_clear()

    yield use
    registry.cache_clear()


def problems(known: Registry):
    return {plugin.name: plugin.problem for plugin in known.plugins}


def test_builtin_families_are_all_modules_that_offer_datasets():
    assert set(registry().owners.values()) == {"wisepatch"}
    assert {"Shapes", "Digits", "MNIST", "CIFAR10", "GTSRB"} < set(registry().datasets)
    modules = {".".join(p.relative_to(DATASETS).with_suffix("").parts): p.read_text() for p in DATASETS.rglob("*.py")}
    assert {name for name, text in modules.items() if "def datasets()" in text} == set(FAMILIES)


def test_plugin_is_registered_with_its_owner(install):
    known = collect(install(good=GOOD))
    assert known.owners["Pets"] == "plugin 'good' (dist-good 1.0)"
    assert known.plugins[0].names("register_datasets") == ("Pets",)
    assert known.names["pets"] == "Pets"


def test_installed_plugins_are_left_out_on_request(used, monkeypatch):
    used(good=GOOD)
    assert "Pets" in registry().datasets
    monkeypatch.setenv("WISEPATCH_PLUGINS", "0")
    registry.cache_clear()
    assert registry().plugins == ()


def test_installation_without_builtin_entry_points_says_to_install_again(monkeypatch):
    monkeypatch.setattr(metadata, "entry_points", lambda group: ())
    with pytest.raises(PluginError, match="names no built-in tasks") as caught:
        collect(())
    assert "install it again" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        (
            GOOD.replace("register_datasets", "register_dataset"),
            "unknown hook 'register_dataset'; hooks are register_datasets, ",
        ),
        (GOOD.replace("@wp.hookimpl", ""), "it has no hook: mark its functions with @wisepatch.hookimpl"),
        (GOOD.replace("datasets():", "datasets(color):"), "Plugin 'plugin_bad' for hook 'register_datasets'"),
        (
            GOOD.replace("return [", "return ['Cats', "),
            "register_datasets gave a value of type str; return wisepatch.D",
        ),
        (GOOD.replace("return [", "return (").replace(")]", "))"), "register_datasets gave one Dataset; return a list"),
        (GOOD.replace("return [", "return 3 # ["), "TypeError: "),
        (GOOD.replace("open=None", "open=None, templates=('a',)"), "prompt template 'a' of 'Pets' has no {}"),
        (GOOD.replace("open=None", "open=None, templates='a {}'"), "the templates of dataset 'Pets' are one string"),
        (
            GOOD.replace("open=None", "open=None, splits=('a@b',)"),
            "dataset 'Pets' names the splits ('a@b',): 'a@b' is no name of letters",
        ),
        (GOOD.replace('"Pets"', '"A,B"'), "register_datasets: 'A,B' cannot be a name"),
        (GOOD.replace('"Pets"', '"Pets@val"'), "register_datasets: 'Pets@val' cannot be a name"),
        (GOOD.replace('"Pets"', '" Pets"'), "register_datasets: ' Pets' cannot be a name"),
        (GOOD.replace("open=None", "open=None, aliases=('a,b',)"), "register_datasets: 'a,b' cannot be a name"),
        (
            GOOD.replace("open=None", "open=None, aliases=('PETS',)"),
            "register_datasets: the name 'PETS' is taken twice",
        ),
        (GOOD.replace('"Pets"', '"mnist"'), "the name 'mnist' is taken by wisepatch"),
        (GOOD.replace("open=None", "open=None, aliases=('mnist',)"), "the name 'mnist' is taken by wisepatch"),
        (
            "import wisepatch as wp\n@wp.hookimpl\ndef register_rules():\n    return [wp.SelectionRule('a=b', None)]",
            "register_rules: 'a=b' cannot be a name",
        ),
        (
            "import wisepatch as wp\n@wp.hookimpl\ndef register_metrics():\n    return [wp.MergeMethod('top5', None)]",
            "register_metrics gave a value of type MergeMethod; return wisepatch.Metric objects",
        ),
        (
            "import wisepatch as wp\n@wp.hookimpl\ndef register_metrics():\n    return [wp.Metric('top1', None)]",
            "the name 'top1' is taken by wisepatch",
        ),
    ],
)
def test_plugin_with_a_problem_is_skipped_whole_and_named(install, text, problem):
    known = collect(install(bad=text, fine=GOOD.replace("Pets", "Fine")))
    assert problems(known)["bad"].startswith(problem), problems(known)
    assert problems(known)["fine"] == ""
    assert {"Fine", "MNIST"} < set(known.datasets)
    assert [plugin.owner for plugin in known.skipped] == ["plugin 'bad' (dist-bad 1.0)"]


MIDWAY = """
import wisepatch as wp

@wp.hookimpl
def register_datasets():
    yield wp.Dataset(name="Pets", classes=("cat", "dog"), open=None)
    raise OSError("no disk")
"""
LATE = """
import wisepatch as wp

@wp.hookimpl
def register_metrics():
    return [wp.Metric("mine", None)]

@wp.hookimpl
def register_rules():
    return [1]
"""


def test_nothing_of_a_plugin_stays_registered_when_a_hook_fails_midway(install):
    known = collect(install(midway=MIDWAY, late=LATE))
    assert problems(known)["midway"] == "OSError: no disk"
    assert problems(known)["late"].startswith("register_rules gave a value of type int")
    assert "Pets" not in known.datasets
    assert "mine" not in known.all("register_metrics")


def test_find_dataset_that_is_not_marked_is_never_called(install):
    unmarked = GOOD + "\ndef find_dataset(name):\n    raise AssertionError('called past pluggy')\n"
    known = collect(install(unmarked=unmarked))
    assert problems(known) == {"unmarked": ""}
    assert known.find_dataset("toy:a") is None


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_name_of_two_plugins_skips_both(install, order):
    texts = {"one": GOOD, "two": GOOD.replace("Pets", "pets")}
    known = collect(install(**{name: texts[name] for name in order}))
    assert problems(known) == {
        "one": "the name 'pets' is taken by plugin 'two' (dist-two 1.0)",
        "two": "the name 'pets' is taken by plugin 'one' (dist-one 1.0)",
    }
    assert "pets" not in known.names


def test_plugin_that_takes_a_builtin_name_does_not_take_others_along(install):
    both = GOOD.replace("return [", "return [wp.Dataset('MNIST', ('a',), None), ")
    known = collect(install(both=both, good=GOOD))
    assert problems(known) == {"both": "the name 'mnist' is taken by wisepatch", "good": ""}
    assert known.owners["Pets"] == "plugin 'good' (dist-good 1.0)"
    assert known.owners["MNIST"] == "wisepatch"


def test_skipped_plugin_is_logged_once_and_named_when_a_task_is_not_known(used, caplog, cli):
    used(broken="1/0")
    with pytest.raises(UnknownNameError) as caught:
        find_task("Pets")
    assert "plugins that were skipped: broken (ZeroDivisionError: division by zero)" in caught.value.hint
    assert cli("datasets", "show", "Shapes").exit_code == 0
    assert [record.getMessage() for record in caplog.records] == [
        "skipped: plugin 'broken' (dist-broken 1.0): ZeroDivisionError: division by zero"
    ]


def test_quiet_commands_do_not_name_skipped_plugins(used, caplog, cli):
    used(broken="1/0")
    assert cli("datasets", "--quiet").exit_code == 0
    assert caplog.records == []
    registry.cache_clear()
    assert cli("datasets").exit_code == 0
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_listing_says_what_was_skipped(used, cli):
    used(broken="1/0", good=GOOD)
    rows = [json.loads(line) for line in cli("plugins", "--json").stdout.splitlines()]
    by_name = {row["name"]: row for row in rows}
    assert by_name["broken"]["problem"] == "ZeroDivisionError: division by zero"
    assert by_name["good"]["registered"] == {"register_datasets": ["Pets"]}
    assert "skipped: ZeroDivisionError" in cli("plugins").stdout


def test_task_of_an_own_plugin_says_what_to_install(used, monkeypatch):
    with pytest.raises(DataError, match="is of the plugin wisepatch-usps, which is not installed"):
        find_task("USPS")
    with pytest.raises(DataError, match="no plugin knows what hf: means in the task 'hf:a/b'") as caught:
        find_task("hf:a/b")
    assert caught.value.hint == "install wisepatch-huggingface"


def test_names_with_a_scheme_are_found_by_the_plugin_that_knows_it(used):
    used(schemed=SCHEMED)
    task = find_task("toy:owner/name@val", ["kitten", "puppy"])
    assert (task.spec, task.name, task.split) == ("toy:owner/name@val", "toy:owner/name", "val")
    assert task.dataset.classes == ("kitten", "puppy")
    with pytest.raises(PluginError, match=r"plugin 'schemed' .*: find_dataset gave a str"):
        find_task("toy:bad")
    with pytest.raises(PluginError, match=r"plugin 'schemed' .*: find_dataset of 'toy:broken' raised KeyError"):
        find_task("toy:broken")


def test_name_with_a_scheme_that_two_plugins_answer_names_both(install):
    known = collect(install(one=SCHEMED, two=SCHEMED))
    with pytest.raises(PluginError, match=r"'toy:a' is answered by plugin 'one' .* and by plugin 'two'"):
        known.find_dataset("toy:a")


def test_aliases_find_their_task(used):
    used(aliased=GOOD.replace("open=None", "open=None, aliases=('OxfordPets',)"))
    assert (find_task("oxfordpets").name, find_task("OxfordPetsVal").split) == ("Pets", "val")


def test_unknown_names_list_close_ones():
    for kind, find, name, close in (
        ("metric", wp.plugins.find_metric, "top11", "top1"),
        ("merge method", wp.plugins.find_merge_method, "linea", "linear"),
        ("rule", wp.plugins.find_rule, "best", "best-mean"),
    ):
        with pytest.raises(UnknownNameError, match=f"unknown {kind} '{name}'; did you mean {close}"):
            find(name)


DATASET = """
import wisepatch as wp


class Colours:
    def __init__(self, count, transform):
        self.count, self.transform = count, transform

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        from PIL import Image

        image = Image.new("RGB", (32, 32), ("blue", "red")[index % 2])
        return (self.transform(image) if self.transform else image), index % 2


def open_split(split, root, transform=None):
    return Colours({"train": 20, "test": 6}[split], transform)


@wp.hookimpl
def register_datasets():
    return [wp.Dataset(name="Colours", classes=("blue", "red"), open=open_split, templates=("a {} picture.",))]
"""


def test_splits_of_a_plugins_own_are_tasks_and_their_rows_carry_the_name(used, cli):
    named = DATASET.replace("open=open_split", "open=open_split, splits=('train', 'test', 'testA', 'val_unseen')")
    used(colours=named.replace('"test": 6', '"test": 6, "testA": 8, "val_unseen": 4'))
    assert [find_task(f"colours@{word}").split for word in ("testa", "val_unseen", "VAL", "all")] == [
        "testA", "val_unseen", "val", "all",
    ]  # fmt: skip
    assert find_task("typo:Colours@testA").split == "testA"
    with pytest.raises(wp.errors.UsageError, match="unknown split 'testC'") as caught:
        find_task("Colours@testC")
    assert "splits are train, val, test, testA, val_unseen, all" in caught.value.hint
    words = ("--task", "Colours@testA,Colours@val_unseen,typo:Colours@testA", "--json")
    assert cli("zeroshot", "--model", "demo", "--task", "Colours").exit_code == 0
    rows = [json.loads(line) for line in cli("eval", "zeroshot", *words).stdout.splitlines()]
    measured = [(row["task"], row["split"], row["n"]) for row in rows if row["metric"] == "top1"]
    assert measured == [("Colours", "testA", 8), ("Colours", "val_unseen", 4), ("typo:Colours", "testA", 8)]
    for words in (
        ("--task", "Colours", "--supported", "Colours@testA"),
        ("--task", "Shapes", "--supported", "colours@testa"),
    ):
        refused = cli("patch", "--model", "demo", *words)
        assert refused.exit_code == 2
        assert "hint: measure it afterwards: wisepatch eval zeroshot patched --task Colours@testA" in refused.stderr
    assert "--task Colours@testA, or at once with patch --also Colours@testA" in refused.stderr
    checked = [json.loads(line) for line in cli("datasets", "check", "Colours", "--json").stdout.splitlines()]
    assert [(each["split"], each["images"]) for each in checked] == [
        ("train", 18), ("val", 2), ("test", 6), ("testA", 8), ("val_unseen", 4),
    ]  # fmt: skip
    found = inspect_plugin("colours", "data")
    assert not found.problems
    assert ("Colours", "val_unseen: labels") in {(each.subject, each.check) for each in found.findings}


METHOD = """
import wisepatch as wp


def cubic(parents, params, out=None):
    first, second = parents
    return first + params["alpha"] ** 3 * (second - first)


@wp.hookimpl
def register_merge_methods():
    return [wp.MergeMethod("cubic", cubic, elementwise=True)]
"""
METRIC = """
import wisepatch as wp


def answered(labels, predicted, classes, annotations):
    fraction = len(set(predicted.tolist())) / classes
    yield "answered", wp.Measured(fraction, len(labels), fraction, fraction)


@wp.hookimpl
def register_metrics():
    return [wp.Metric("answered", answered, label="classes that are answered")]
"""
OBJECTIVE = """
import wisepatch as wp


def halved(start):
    def loss(model, batch):
        return start.params["share"] * start.cross_entropy(model(batch.images), batch)

    return loss


@wp.hookimpl
def register_objectives():
    return [wp.Objective("halved", halved, params={"share": 0.5}, paper="nobody's")]
"""
RULE = """
import wisepatch as wp


def nearest(frame, alpha):
    return min(frame["alpha"], key=lambda known: abs(known - alpha))


@wp.hookimpl
def register_rules():
    return [wp.SelectionRule("nearest", nearest, takes="ALPHA")]
"""


def test_dataset_method_metric_and_rule_come_as_plugins_of_a_few_lines(used, cli, run_store, tmp_path):
    texts = {"dataset": DATASET, "method": METHOD, "metric": METRIC, "rule": RULE}
    assert all(len(text.strip().splitlines()) <= 30 for text in texts.values())
    used(**texts)
    (tmp_path / "data").mkdir()

    def rows(*words):
        done = cli(*words, "--data", tmp_path / "data", "--json")
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    (row,) = rows("eval", "zeroshot", "--task", "colours", "--metric", "answered")
    assert (row["task"], row["split"], row["metric"], row["n"]) == ("Colours", "test", "answered", 6)
    assert row["value"] in (0.5, 1.0)
    swept = rows(
        "interpolate", "--alpha", "0,0.5,1", "--method", "cubic", "--eval", "Colours", "--metric", "top1,answered",
        "--select", "nearest=0.6",
    )  # fmt: skip
    measured = [row for row in swept if "value" in row]
    assert {row["method"] for row in measured} == {"cubic"}
    assert {row["metric"] for row in measured} == {"top1", "answered"}
    assert {row["task"] for row in measured} == {"shapes", "Colours"}
    assert [(row["alpha"], row["rule"]) for row in swept if "rule" in row] == [(0.5, "nearest=0.6")]
    start, end, patched = (wp.load_weights(run_store, run_store.find(n)) for n in ("zeroshot", "finetuned", "patched"))
    expected = wp.interpolate(start, end, 0.5**3)
    assert all((patched[name] - tensor).abs().max() < 1e-5 for name, tensor in expected.items())
    assert any((patched[name] != tensor).any() for name, tensor in start.items())


def test_an_objective_comes_as_a_plugin_of_a_few_lines(used, cli, shapes, tmp_path):
    assert len(OBJECTIVE.strip().splitlines()) <= 30
    used(objective=OBJECTIVE)
    words = ("finetune", "--model", "demo", "--task", shapes, "--steps", "2", "--batch-size", "6", "--json")
    plain, halved, quarter = (
        json.loads(cli(*words, *more).stdout.splitlines()[-1])
        for more in ((), ("--objective", "halved"), ("--objective", "halved", "--objective-param", "share=0.25"))
    )
    assert [each["training"] for each in (plain, halved, quarter)] == ["paint", "paint+halved", "paint+halved"]
    losses = [
        json.loads((run / "log.jsonl").read_text().splitlines()[0])["loss"]
        for run in sorted((tmp_path / "wisepatch-store" / "runs").iterdir(), key=lambda each: each.stat().st_mtime)
    ]
    assert [loss / losses[0] for loss in losses] == pytest.approx([1, 0.5, 0.25])
    refused = cli(*words[:-1], "--objective", "halved", "--objective-param", "part=0.25")
    assert refused.exit_code == 2
    assert "the objective halved has no setting 'part'" in refused.stderr
    unknown = cli(*words[:-1], "--objective", "halve")
    assert "unknown objective 'halve'" in unknown.stderr
    assert "halved" in unknown.stderr


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

    (usps,) = (each for each in run("plugins") if each["name"] == "usps")
    assert (usps["distribution"], usps["datasets"], usps["problem"]) == ("wisepatch-usps 0.1.0", ["USPS"], "")
    tests = importlib.util.spec_from_file_location("test_usps", PLUGINS / "wisepatch-usps" / "tests" / "test_usps.py")
    module = importlib.util.module_from_spec(tests)
    tests.loader.exec_module(module)
    module.write_usps(tmp_path / "data")
    (row,) = run("zeroshot", "--model", "demo", "--task", "usps", "--data", "data")
    assert (row["task"], row["n"], row["split"]) == ("USPS", 10, "test")
    assert "USPS" in {record["name"] for record in run("datasets")}

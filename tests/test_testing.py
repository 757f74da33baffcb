"""The kit for plugin authors: a good plugin passes, and every way to break the contract is found and named."""

import json
import re
import socket
import sys
from dataclasses import replace
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from PIL import Image

import wisepatch.testing
from wisepatch import plugins
from wisepatch.errors import PluginError, UnknownNameError
from wisepatch.testing import check_plugin, inspect_plugin, refused_network, write_images

README = (Path(__file__).parents[1] / "README.md").read_text()

GOOD = """
import wisepatch as wp
from wisepatch.datasets.samples import Annotations
from wisepatch.datasets.published.readers import open_folders

CLASSES = ("cat", "dog")

class Pets:
    def __init__(self, files, transform):
        self.files, self.transform = files, transform
        self.labels = [label for _, label in files.files]
        self.annotations = Annotations(groups=[0] * len(files), group_names=("home",))

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        image, label = self.files[index]
        return (self.transform(image) if self.transform else image), label

def open_split(split, root, transform=None):
    return Pets(open_folders("Pets", root / "pets" / split, CLASSES, None, hint="draw some"), transform)

@wp.hookimpl
def register_datasets():
    return [wp.Dataset(name="Pets", classes=CLASSES, open=open_split)]
"""
BODY = "return (self.transform(image) if self.transform else image), label"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a plugin, ``GOOD`` with some text replaced, as a module; its name is returned."""
    code = tmp_path / "code"
    code.mkdir()
    monkeypatch.syspath_prepend(code)

    def module(*replaced, text=GOOD):
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        (code / "pets_plugin.py").write_text(text)
        monkeypatch.delitem(sys.modules, "pets_plugin", raising=False)
        monkeypatch.setattr(
            wisepatch.testing, "entry_points", lambda group: [EntryPoint("pets", "pets_plugin", "wisepatch")]
        )
        return "pets"

    return module


@pytest.fixture
def pets(data):
    for split in ("train", "test"):
        write_images(data / "pets" / split, ("cat", "dog"), per_class=12)
    return data


def problems(*arguments):
    """The problems that are found, as ``subject, check: problem``."""
    return [f"{found.subject}, {found.check}: {found.problem}" for found in inspect_plugin(*arguments).problems]


def test_good_plugin_passes_by_entry_point_and_as_module(write, pets):
    name = write()
    assert [dataset.name for dataset in check_plugin(name)] == ["Pets"]
    assert [dataset.name for dataset in check_plugin(import_module("pets_plugin"), pets)] == ["Pets"]
    checked = {(found.subject, found.check) for found in inspect_plugin(name, pets).findings}
    assert {
        ("pets", "listing"),
        ("Pets", "missing data"),
        ("Pets", "val: annotations"),
        ("Pets", "test: labels"),
    } <= checked


def test_plugin_of_the_readme_passes(write, pets):
    text = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "hookimpl" in block)
    assert problems(write(text=text), pets) == []


def test_distribution_is_found_in_any_spelling(write, monkeypatch):
    class Installed:
        name, version = "Wisepatch_Pets", "1.0"

    write()
    entry_point = EntryPoint("pets", "pets_plugin", "wisepatch")
    entry_point.__dict__["dist"] = Installed()
    monkeypatch.setattr(wisepatch.testing, "entry_points", lambda group: [entry_point])
    assert [dataset.name for dataset in check_plugin("wisepatch-pets")] == ["Pets"]


def test_a_name_that_another_plugin_takes_is_a_problem(write, monkeypatch):
    write()
    known = plugins.registry()
    clash = plugins.Plugin("pets", "not installed", problem="the name 'pets' is taken by plugin 'cats' (cats 1.0)")
    monkeypatch.setattr(plugins, "registry", lambda: replace(known, plugins=(clash,)))
    with pytest.raises(PluginError, match=r"pets, hooks: the name 'pets' is taken by plugin 'cats'"):
        check_plugin("pets")


def test_unknown_plugin_lists_those_installed(write):
    write()
    with pytest.raises(UnknownNameError, match=r"unknown plugin 'pest'; did you mean pets\?"):
        check_plugin("pest")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "import wisepatch",
            "import no_such_library\nimport wisepatch",
            "pets, import: ModuleNotFoundError: No module",
        ),
        ("def register_datasets", "def register_dataset", "pets, hooks: unknown hook 'register_dataset'"),
        ("@wp.hookimpl\n", "", "pets, hooks: register_datasets must be marked with @wisepatch.hookimpl"),
        ("@wp.hookimpl\ndef register_datasets", "def nothing", "pets, hooks: it has no hook"),
        ("import wisepatch", "import numpy\nimport wisepatch", "pets, listing: listing imports numpy; do it when"),
        (
            "return [wp",
            "import socket\n    with socket.socket() as one:\n        one.connect_ex(('127.0.0.1', 9))\n    return [wp",
            "pets, listing: listing connects to ('127.0.0.1', 9)",
        ),
        (
            "return [wp",
            "return ['Cats', wp",
            "pets, hooks: register_datasets gave a value of type str; return wisepatch.Dataset",
        ),
        ("return [wp", "1 / 0\n    return [wp", "pets, hooks: ZeroDivisionError: division by zero"),
        (
            "classes=CLASSES",
            "classes=CLASSES, templates=('a photo',)",
            "pets, hooks: prompt template 'a photo' of 'Pets' has no {}",
        ),
        (
            "classes=CLASSES",
            "classes=CLASSES, templates='a photo of a {}.'",
            "pets, hooks: the templates of dataset 'Pets' are one string",
        ),
        (
            "classes=CLASSES",
            "classes=CLASSES, metric='top9'",
            "Pets, metrics: metric: unknown metric 'top9'; did you mean top5 or top1?; known: ",
        ),
        (
            "@wp.hookimpl",
            "@wp.hookimpl\ndef register_rules():\n    return [1]\n\n@wp.hookimpl",
            "pets, hooks: register_rules gave a value of type int; return wisepatch.SelectionRule objects",
        ),
        (
            "classes=CLASSES",
            "classes=('a', str(id(object)) + str(__import__('time').time_ns()))",
            "pets, register_datasets: called twice, it gives different datasets",
        ),
        (
            "@wp.hookimpl",
            "@wp.hookimpl\ndef register_metrics():\n    return [wp.Metric('mine', lambda *_: [('yours', 1)])]\n\n@wp.hookimpl",
            "mine, register_metrics: measure: it yields yours, and not mine",
        ),
        (
            "@wp.hookimpl",
            "@wp.hookimpl\ndef register_metrics():\n    return [wp.Metric('mine', lambda *_: [('mine', 1)])]\n\n@wp.hookimpl",
            "mine, register_metrics: measure: it yields a int; yield wisepatch.Measured",
        ),
        (
            "@wp.hookimpl",
            "@wp.hookimpl\ndef register_metrics():\n    return [wp.Metric('mine', lambda: [])]\n\n@wp.hookimpl",
            "mine, register_metrics: measure: TypeError: register_metrics.<locals>.<lambda>() takes 0 positional arguments"
            " but 4 were given; it is given labels, predicted, classes, annotations",
        ),
        (
            "@wp.hookimpl",
            "@wp.hookimpl\ndef register_rules():\n    return [wp.SelectionRule('mine', lambda at, _: at['beta'])]\n\n@wp.hookimpl",
            "mine, register_rules: choose: KeyError: 'beta'; it is given a frame and a value",
        ),
        (
            "@wp.hookimpl",
            "@wp.hookimpl\ndef register_merge_methods():\n    return [wp.MergeMethod('mine', lambda parents: 0)]\n\n@wp.hookimpl",
            "mine, register_merge_methods: merge: TypeError: register_merge_methods.<locals>.<lambda>() takes 1 positional"
            " argument but 3 were given; it is given tensors, params and out",
        ),
        (
            "@wp.hookimpl",
            "@wp.hookimpl\ndef register_metrics():\n    return [wp.Metric('mine', None, needs=('group',))]\n\n@wp.hookimpl",
            "mine, register_metrics: needs: group is no annotation; known: accepted, clusters, corruption, group",
        ),
        (
            "@wp.hookimpl",
            "@wp.hookimpl\ndef register_rules():\n    return [wp.SelectionRule('mine', lambda *_: 'half')]\n\n@wp.hookimpl",
            "mine, register_rules: choose: it returns 'half'; return one of the alphas of the frame",
        ),
        (
            "@wp.hookimpl",
            "@wp.hookimpl\ndef register_objectives():\n    return [wp.Objective('mine', print, {'on': [1]})]\n\n@wp.hookimpl",
            "mine, register_objectives: params: on is a list; give a number or a text",
        ),
        (
            "@wp.hookimpl",
            "@wp.hookimpl\ndef register_merge_methods():\n"
            "    return [wp.MergeMethod('mine', lambda parents, *_: sum(parents))]\n\n@wp.hookimpl",
            "mine, register_merge_methods: merge: of two equal tensors it makes another one",
        ),
        (
            "@wp.hookimpl",
            "@wp.hookimpl\ndef register_merge_methods():\n    scale = wp.Parameter('scale', 1.0)\n"
            "    return [wp.MergeMethod('mine', lambda parents, *_: sum(parents), parameters=(scale,))]\n\n@wp.hookimpl",
            "mine, register_merge_methods: merge: of equal models it makes another one with its defaults",
        ),
        (
            "classes=CLASSES",
            "classes=CLASSES, extra_metrics=('top9',)",
            "Pets, metrics: extra_metrics: unknown metric 'top9'",
        ),
        ('name="Pets"', 'name="mnist"', "pets, hooks: the name 'mnist' is taken by wisepatch"),
        (
            'name="Pets"',
            'name="Pets", aliases=("svhn",)',
            "pets, hooks: the name 'svhn' is taken by wisepatch",
        ),
        (
            "return [",
            "return [wp.Dataset('PETS', CLASSES, open_split), ",
            "pets, hooks: register_datasets: the name 'Pets' is taken twice",
        ),
        ('("cat", "dog")', '("cat", "dog", "dog")', "Pets, class names: dog is the name of two classes"),
        ('("cat", "dog")', '("cat", "dog", " ")', "Pets, class names: class 2 has an empty name"),
        (', hint="draw some"', "", "Pets, missing data: the error for train has no hint: Pets: there are no images"),
        (
            "return Pets(",
            "(root / 'pets').iterdir().__next__()\n    return Pets(",
            "Pets, missing data: train raises FileNotFoundError",
        ),
        (
            "return Pets(",
            "import urllib.request\n    urllib.request.urlopen('http://127.0.0.1:9/')\n    return Pets(",
            "Pets, missing data: train raises URLError (<urlopen error the network is refused",
        ),
    ],
)
def test_what_breaks_the_contract_without_data_is_named(write, old, new, problem):
    found = problems(write((old, new)))
    assert not any("tell the author" in each for each in found)
    assert any(each.startswith(problem) for each in found), found


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"pets" / split', '"nowhere" / split', "Pets, test: opens: Pets: there are no images below"),
        (BODY, "return image.convert('L'), label", "Pets, train: first image: the image is of mode 'L'"),
        (BODY, "return 'image', label", "Pets, test: first image: Pets (test): image 0 is a str, not a PIL image"),
        (
            BODY,
            BODY.replace("label", "str(label)"),
            "Pets, test: first image: Pets (test): the label of image 0 is a str, not an integer",
        ),
        (BODY, "raise KeyError(index)", "Pets, test: first image: Pets (test): image 0 cannot be read: KeyError: 0"),
        (
            BODY,
            "return image, label",
            "Pets, test: transform: Pets (test): image 0 is a PngImageFile, not a list, as the transform makes it",
        ),
        (
            BODY,
            "image = image.convert('L') if self.transform else image\n        " + BODY,
            "Pets, train: transform: the image is of mode 'L'",
        ),
        (
            BODY,
            BODY + " + 1",
            "Pets, train: first image: Pets (train): the label of image 20 is 2, which is outside the 2 classes",
        ),
        (
            "[label for _,",
            "['cat' for _,",
            "Pets, test: labels: Pets (test): the labels cannot be read: invalid literal",
        ),
        (
            "[label for _,",
            "[2 * label for _,",
            "Pets, test: labels: Pets (test): the label of image 12 is 2, which is outside the 2 classes",
        ),
        (
            BODY,
            "self.count = getattr(self, 'count', 0) + 1\n        " + BODY + " if self.count < 22 else 1 - label",
            "Pets, train: labels: the same index gives different labels when it is read again",
        ),
        ("[label for _,", "[1 - label for _,", "Pets, test: labels: the attribute with the labels does not agree"),
        (
            "self.files, self",
            "self.reader = lambda: files\n        self.files, self",
            "Pets, test: workers: the samples",
        ),
        ("[0] * len(files)", "[0] * 3", "Pets, test: annotations: Pets (test): groups has 3 entries for 24 images"),
        (
            "[0] * len(files)",
            "[1] * len(files)",
            "Pets, test: annotations: Pets (test): groups has 1, which is outside the 1 group names",
        ),
        (
            "group_names=",
            "accepted=[{2}] * len(files), group_names=",
            "Pets, test: annotations: Pets (test): accepted has 2, which is outside the 2 classes",
        ),
        (
            "group_names=",
            "sequences=[(0, 24)], group_names=",
            "Pets, test: annotations: Pets (test): sequences has 24, which is outside the 24 images",
        ),
    ],
)
def test_what_breaks_the_contract_with_data_is_named(write, pets, old, new, problem):
    found = problems(write((old, new)), pets)
    assert any(each.startswith(problem) for each in found), found


def test_listing_that_reads_the_data_folder_is_found(write, pets):
    marker = pets / "pets" / "names.txt"
    marker.write_text("cat\ndog\n")
    found = problems(write(("return [wp", f"open({str(marker)!r}).close()\n    return [wp")), pets)
    assert [each for each in found if "listing" in each] == [
        f"pets, listing: listing reads {marker}; do it when a split is opened"
    ]


def test_all_problems_are_raised_together_with_plugin_task_and_reason(write, pets):
    name = write((BODY, "return image, label"), ('("cat", "dog")', '("cat", "dog", "dog")'))
    with pytest.raises(PluginError, match=r"^the plugin pets has 4 problems:") as caught:
        check_plugin(name, pets)
    assert (
        "Pets, test: transform: Pets (test): image 0 is a PngImageFile, not a list, as the transform makes it"
        in caught.value.message
    )
    assert "Pets, class names: dog is the name of two classes" in caught.value.message
    assert "wisepatch plugins check" in caught.value.hint


FINDER = """
@wp.hookimpl
def find_dataset(name):
    if name.startswith("pets:"):
        return wp.Dataset(name=name, classes=CLASSES, open=open_split)
"""


def test_names_with_a_scheme_are_found_and_checked(write, pets):
    name = write(text=GOOD + FINDER)
    assert [dataset.name for dataset in check_plugin(name, pets, ["pets:small"])] == ["Pets", "pets:small"]
    assert problems(name, None, ["dogs:small"]) == ["dogs:small, find_dataset: it finds no dataset of this name"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('name.startswith("pets:")', "True", "pets, find_dataset: it answers to 'nobody-offers:this'"),
        (
            "return wp.Dataset(name=name",
            "return dict(name=name",
            "pets:x, find_dataset: plugin 'pets' (not installed): find_dataset gave a dict",
        ),
    ],
)
def test_find_dataset_that_breaks_the_contract_is_named(write, old, new, problem):
    found = problems(write((old, new), text=GOOD + FINDER), None, ["pets:x"])
    assert any(each.startswith(problem) for each in found), found


def test_network_is_refused_within_the_context_alone():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with refused_network(), pytest.raises(OSError, match="refused during this check"):
            socket.create_connection(server.getsockname())
        with refused_network(), socket.socket() as one, pytest.raises(OSError, match="refused during this check"):
            one.connect(server.getsockname())
        socket.create_connection(server.getsockname()).close()


def test_toy_images_tell_classes_and_images_apart(tmp_path):
    write_images(tmp_path, ("cat", "dog"), per_class=3)
    pictures = {path.relative_to(tmp_path).as_posix(): Image.open(path) for path in tmp_path.rglob("*.png")}
    assert set(pictures) == {f"{name}/{index}.png" for name in ("cat", "dog") for index in range(3)}
    assert len({image.tobytes() for image in pictures.values()}) == 6
    assert pictures["cat/0.png"].getpixel((9, 0)) != pictures["dog/0.png"].getpixel((9, 0))


def test_command_prints_a_line_a_check(cli, write, pets):
    done = cli("plugins", "check", write(), "--data", pets, "--json")
    assert done.exit_code == 0, done.output
    records = [json.loads(line) for line in done.stdout.splitlines()]
    opens = {"plugin": "pets", "subject": "Pets", "check": "val: opens", "ok": True, "problem": ""}
    assert {"type": "finding", **opens} in records
    table = cli("plugins", "check", "pets")
    assert re.search(r"Pets\s+│ missing data\s+│ passed", table.stdout)


def test_command_ends_with_1_and_names_the_problems(cli, write):
    done = cli("plugins", "check", write(('("cat", "dog")', '("cat", "cat")')))
    assert done.exit_code == 1
    assert "cat is the name of two" in done.stdout
    assert "error: the plugin pets has 1 problem\n" in done.stderr
    assert "hint: " in done.stderr
    assert cli("plugins", "check", "nobody").exit_code == 2

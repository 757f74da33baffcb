"""Words become tasks; several published tasks go the whole way, on miniature files in the layouts of their publishers."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzzing import or_an_error_for_users, texts
from tests.samples import draw_folder, write_mnist
from wisepatch.datasets.names import names
from wisepatch.datasets.renaming import renamed
from wisepatch.datasets.typography import attacked
from wisepatch.errors import DataError, UnknownNameError, UsageError
from wisepatch.plugins import registry
from wisepatch.task_roles import RunTasks
from wisepatch.task_specs import existing, listed_by_comma
from wisepatch.tasks import find_task, find_tasks


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder of images, one with @ in its name, a CSV, and an attacked folder, in the working directory."""
    draw_folder(tmp_path / "shapes")
    draw_folder(tmp_path / "mail@home")
    rows = [f"shapes/{shape}/{index}.png,{shape}" for shape in ("circle", "square") for index in range(6)]
    (tmp_path / "few.csv").write_text("\n".join(["path,label", *rows]))
    (tmp_path / "struck").mkdir()
    for shown, text in (("circle", "square"), ("square", "circle")):
        source = tmp_path / "shapes" / shown / "0.png"
        (tmp_path / "struck" / f"label={shown}_text={text}.png").write_bytes(source.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("word", "spec", "split"),
    [
        ("MNIST", "MNIST", None),
        ("mnist", "MNIST", None),
        (" MNIST ", "MNIST", None),
        ("mnist@val", "MNIST@val", "val"),
        ("MNIST@Test", "MNIST@test", "test"),
        ("MNISTVal", "MNIST@val", "val"),
        ("mnistval@train", "MNIST@train", "train"),
        ("cifar-10", "CIFAR10", None),
        ("imagenet-a", "ImageNetA", None),
        ("imagenet_a@test", "ImageNetA@test", "test"),
        ("ImageNetAValClasses", "ImageNetAValClasses", None),
        ("typo:mnist", "typo:MNIST", None),
        ("Typo:mnistVal", "typo:MNIST@val", "val"),
        ("shapes/", "{here}/shapes", None),
        ("./shapes@val", "{here}/shapes@val", "val"),
        ("mail@home", "{here}/mail@home", None),
        ("mail@home@test", "{here}/mail@home@test", "test"),
        ("few.csv", "{here}/few.csv", None),
        ("few.csv@train", "{here}/few.csv@train", "train"),
        ("typo:few.csv", "typo:{here}/few.csv", None),
        ("struck", "{here}/struck", None),
        ("~/shapes", "{here}/shapes", None),
    ],
)
def test_word_becomes_a_task_whose_spec_finds_it_again_from_anywhere(places, monkeypatch, word, spec, split):
    monkeypatch.setenv("HOME", str(places))
    task = find_task(word)
    assert (task.spec, task.split) == (spec.format(here=places), split)
    assert task.base_spec == (task.spec.removesuffix(f"@{split}") if split else task.spec)
    monkeypatch.chdir("/")
    again = find_task(task.spec)
    assert (again.spec, again.split, again.dataset.classes) == (task.spec, task.split, task.dataset.classes)
    assert find_task(task.base_spec).split is None


def test_folder_wins_over_a_name_that_is_only_like_a_registered_one(places):
    draw_folder(places / "MNIST")
    assert find_task("shapes").dataset.family != "folder"
    draw_folder(places / "cifar-10")
    assert find_task("MNIST").dataset.family != "folder"
    assert find_task("./MNIST").dataset.family == "folder"
    assert find_task("cifar-10").dataset.family == "folder"


@pytest.mark.parametrize(
    ("word", "error", "message"),
    [
        ("MNIS", UnknownNameError, "unknown task 'MNIS'; did you mean MNIST"),
        ("x" * 300, UnknownNameError, "unknown task 'xxx"),
        ("x" * 300 + "@val", UnknownNameError, "unknown task 'xxx"),
        ("typo:" + "x" * 300, UnknownNameError, "unknown task 'xxx"),
        ("a/" + "x" * 300, DataError, "there is no folder or CSV a/xxx"),
        ("~nobody-of-this-name/x", DataError, "there is no folder or CSV ~nobody-of-this-name/x"),
        ("~nobody-of-this-name", UnknownNameError, "unknown task '~nobody-of-this-name'"),
        ("a\0b", UnknownNameError, "unknown task"),
        ("gone.csv", DataError, "there is no folder or CSV gone.csv"),
        ("https://x.org/photos.csv", DataError, "https://x.org/photos.csv is an address"),
        ("abc:def", DataError, "no plugin knows what abc: means in the task 'abc:def'"),
        ("MNIST@vel", UsageError, "unknown split 'vel' in task 'MNIST@vel'"),
        ("", UsageError, "the task name '' is empty"),
        ("@val", UsageError, "the task name '@val' is empty"),
        ("typo:", UsageError, "the task 'typo:' names nothing to write on"),
        ("notes.txt", DataError, "task 'notes.txt' is a file and no CSV"),
    ],
)
def test_word_that_is_no_task_is_an_error_of_ours(places, word, error, message):
    (places / "notes.txt").write_text("no images")
    with pytest.raises(error) as caught:
        find_task(word)
    assert type(caught.value) is error
    assert caught.value.message.startswith(message)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["x" * 300, "~nobody/x", "a\0b", "", " ", "nowhere"])
def test_word_that_cannot_be_a_path_names_none(name):
    assert existing(name) is None


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("MNIST, SVHN,,", ["MNIST", "SVHN"]),
        ("red,blue", ["red,blue"]),
        ("MNIST, red,blue,SVHN", ["MNIST", "red,blue", "SVHN"]),
        ("red,blue@val,typo:red,blue@all", ["red,blue@val", "typo:red,blue@all"]),
        ("corrupt:typo:red,blue:fog:3@test,shapes", ["corrupt:typo:red,blue:fog:3@test", "shapes"]),
        ("red,blue?group=[0-9],./red,blue/", ["red,blue?group=[0-9]", "./red,blue/"]),
        ("last ", ["last "]),
    ],
)
def test_a_list_by_comma_leaves_paths_with_commas_whole(places, words, parts):
    (places / "red,blue").mkdir()
    (places / "last ").mkdir()
    assert listed_by_comma(words) == parts


def test_a_folder_whose_name_ends_in_a_space_is_a_task(places):
    (places / "shapes").rename(places / "shapes ")
    assert find_task("shapes ").dataset.name == "shapes "


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("corrupt:shapes@val:fog:2", "a split comes last: corrupt:shapes:fog:2@val"),
        ("shapes@all?group=circle", "a split comes last: shapes?group=circle@all"),
        ("shapes@vel:fog", "splits are train, val, test, all; "),
    ],
)
def test_what_follows_a_split_is_said_to_belong_before_it(places, word, hint):
    with pytest.raises(UsageError) as caught:
        find_task(word)
    assert caught.value.hint.startswith(hint)
    if "last" in hint:
        find_task(hint.rpartition(": ")[2])


def test_command_line_says_that_a_long_name_is_not_known(cli):
    done = cli("datasets", "show", "x" * 300)
    assert done.exit_code == 2
    assert "error: unknown task 'xxx" in done.stderr
    assert (
        cli("eval", "y" * 300, "--task", "Shapes").stderr.splitlines()[0].startswith("error: unknown checkpoint 'yyy")
    )


def test_several_tasks_are_each_taken_once(places):
    assert [task.spec for task in find_tasks(["MNIST", "mnist", "MNIST@val"])] == ["MNIST", "MNIST@val"]
    draw_folder(places / "other" / "shapes")
    with pytest.raises(UsageError, match="two tasks are called 'shapes'"):
        find_tasks(["./shapes", "other/shapes"])
    with pytest.raises(UsageError, match="class names are given for several tasks"):
        find_tasks(["MNIST", "SVHN"], classnames=["a"])


DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def test_class_names_and_prompts_are_replaced():
    clean = find_task("MNIST").dataset
    other = renamed(clean, DIGITS, ["a {}"])
    assert (other.classes, other.templates) == (tuple(DIGITS), ("a {}",))
    assert renamed(clean, None, None) == clean
    assert renamed(clean, None, ["a {}"]).classes == clean.classes
    with pytest.raises(UsageError, match="2 class names for 10 classes of 'MNIST'"):
        renamed(clean, ["zero", "one"], None)
    with pytest.raises(UsageError, match="the first that differ are number 2: nothing is given for nothing"):
        renamed(replace(clean, classes=("cat", "nothing")), ["cat"], None)


def test_names_for_a_task_with_a_label_map_are_those_of_its_head():
    clean = find_task("ImageNetA").dataset
    other = renamed(clean, [f"class {index}" for index in range(1000)], None)
    assert (other.head_names[7], other.classes, other.label_map) == ("class 7", clean.classes, clean.label_map)
    with pytest.raises(UsageError, match="200 class names for 1000 classes of 'ImageNetA'"):
        renamed(clean, clean.classes, None)


def test_attacked_tasks_write_the_new_names():
    other = renamed(find_task("typo:MNIST").dataset, DIGITS, ["a {}"])
    clean = renamed(find_task("MNIST").dataset, DIGITS, ["a {}"])
    assert other == attacked(clean, other.open.style)
    assert (other.classes, other.templates, other.open.dataset.classes) == (tuple(DIGITS), ("a {}",), tuple(DIGITS))


def test_attacked_folder_keeps_its_classes_in_the_order_of_the_names(places):
    other = renamed(find_task("struck").dataset, ["square", "circle", "star"], ["a {}"])
    assert (other.classes, other.templates) == (("square", "circle", "star"), ("a {}",))
    assert other.split("test", places)[0][1] == 1  # shows a circle
    with pytest.raises(UsageError, match=r"2 labels of .* are not among the class names: circle, square"):
        renamed(find_task("struck").dataset, ["cat", "dog"], None)


def write_dtd(data):
    """The papers' folders: train and val, each with one folder a texture."""
    for split, size in (("train", 10), ("val", 4)):
        draw_folder(data / "dtd" / split, per_class=size, classes=("circle", "star"))
        for drawn, texture in (("circle", "dotted"), ("star", "braided")):
            (data / "dtd" / split / drawn).rename(data / "dtd" / split / texture)


def write_eurosat(data):
    draw_folder(data / "eurosat" / "2750", per_class=10, classes=("ring", "heart"))
    for drawn, land in (("ring", "Forest"), ("heart", "River")):
        (data / "eurosat" / "2750" / drawn).rename(data / "eurosat" / "2750" / land)


def write_imagenet_a(data):
    draw_folder(data / "imagenet-a", per_class=2, classes=("cross", "arrow"))
    for drawn, index in (("cross", 6), ("arrow", 988)):
        (data / "imagenet-a" / drawn).rename(data / "imagenet-a" / names("ImageNet folders")[index])


def test_several_published_tasks_go_the_whole_way(cli, tmp_path):
    data = tmp_path / "data"
    write_mnist(data)
    for write in (write_dtd, write_eurosat, write_imagenet_a):
        write(data)
    common = ("--data", data, "--json")
    run = cli(
        "finetune", "--model", "demo", "--task", "MNIST", "--supported", "DTD,EuroSAT", "--steps", 3, "--batch-size", 8,
        "--lr", "1e-3", *common,
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    swept = cli("interpolate", "--alpha", "0,0.5,1", "--select", "max-drop=0.5", *common)
    assert swept.exit_code == 0, swept.output
    rows = [row for row in map(json.loads, swept.stdout.splitlines()) if "metric" in row]
    sizes = {(row["task"], row["split"]): row["n"] for row in rows}
    assert sizes == {
        ("MNIST", "val"): 4, ("MNIST", "test"): 20, ("DTD", "val"): 2, ("DTD", "test"): 8, ("EuroSAT", "val"): 2,
        ("EuroSAT", "test"): 2,
    }  # fmt: skip
    assert {row["alpha"] for row in rows} == {0.0, 0.5, 1.0}
    measured = cli("eval", "patched", "--task", "ImageNetA", "--template", "simple", *common)
    assert measured.exit_code == 0, measured.output
    (row,) = map(json.loads, measured.stdout.splitlines())
    assert (row["task"], row["metric"], row["n"]) == ("ImageNetA", "top1", 4)


def test_training_on_a_task_without_a_train_split_says_so(cli, data):
    write_imagenet_a(data)
    result = cli("finetune", "--model", "demo", "--task", "ImageNetA", "--data", data)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-2:] == ["error: task 'ImageNetA' has no 'train' split", "hint: it offers test"]


# The tasks that the two papers name; those of WILDS are a plugin's.
PAPERS = [
    "Cars", "DTD", "EuroSAT", "GTSRB", "KITTI", "MNIST", "RESISC45", "SUN397", "SVHN", "ImageNet", "CIFAR10",
    "CIFAR100", "STL10", "Food101", "FashionMNIST", "MTSD", "CLEVR", "ImageNetV2", "ImageNetR", "ImageNetA",
    "ImageNetSketch", "ObjectNet", "ImageNetRValClasses", "ImageNetAValClasses", "ObjectNetValClasses",
    "ImageNetVidRobust", "ImageNetVidRobustValClasses", "YTBBRobust", "YTBBRobustValClasses", "CIFAR10.1",
    "CIFAR10.2",
    *(f"ImageNet{k}" for k in (1, 2, 4, 8, 16, 25, 32, 50, 64, 128, 600)),
]  # fmt: skip


@pytest.mark.parametrize("name", PAPERS)
def test_every_task_of_the_papers_is_listed_with_what_is_needed_to_get_it(name):
    dataset = find_task(name).dataset
    assert dataset.name == name
    assert dataset.source.startswith("http")
    assert dataset.layouts
    assert len(set(dataset.head_names)) >= 0.99 * len(dataset.head_names)  # ImageNet's has two names twice


def test_no_alias_hides_a_name():
    known = registry()
    assert {name for name, owner in known.names.items() if name == owner.lower()} == {n.lower() for n in known.datasets}


def test_validation_images_are_not_augmented(data):
    """The published code cuts validation from the training set as opened for training; here each has its own transform."""
    write_mnist(data)
    for split in ("train", "val", "test"):
        assert find_task("MNIST").dataset.split(split, data, lambda image: (image.mode, image.size))[0][0] == (
            "RGB",
            (28, 28),
        )
    training = find_task("MNIST").dataset.split("train", data, lambda image: "augmented")
    validation = find_task("MNIST").dataset.split("val", data, lambda image: "as it is")
    assert {training[i][0] for i in range(len(training))} == {"augmented"}
    assert {validation[i][0] for i in range(len(validation))} == {"as it is"}


def test_a_folder_may_be_called_as_a_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_folder(tmp_path / "pets@val")
    task = find_task("./pets@val")
    assert (task.name, task.split) == ("pets@val", None)


def test_other_words_on_the_images_are_another_version(tmp_path):
    clean = find_task("Shapes").dataset.classes
    plain, other = (find_task("typo:Shapes", names) for names in (None, [f"my {name}" for name in clean]))
    assert plain.dataset.split("val", tmp_path).fingerprint() != other.dataset.split("val", tmp_path).fingerprint()


words = st.sampled_from(
    [
        "Shapes",
        "MNIST",
        "mnistVal",
        "shapes",
        "shapes/",
        "./mail@home",
        "few.csv",
        "attacked",
        "typo:Shapes",
        "ImageNetA",
        "hf:a",
    ]
)
suffixes = st.sampled_from(["", "@val", "@train", "@test", "@", "@@val", "/@val", "Val", "@VAL", " "])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(st.sampled_from(["", "typo:", "TYPO:", "typo: ", "~"]), words | texts, suffixes | texts).map("".join),
    words | texts,
)
def test_fuzzed_words_become_tasks_that_their_words_find_again_or_give_an_error(places, word, other):
    with or_an_error_for_users:
        task = find_task(word)
        again = find_task(task.spec)
        assert (again.spec, again.name, again.split, again.dataset.classes) == (
            task.spec,
            task.name,
            task.split,
            task.dataset.classes,
        )
        with or_an_error_for_users:
            find_tasks([word, other])
        RunTasks.find(word, [other])


def test_a_folder_and_a_split_of_one_spelling_can_both_be_named(tmp_path, monkeypatch):
    for name in ("a", "a@val"):
        draw_folder(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    folder, split = find_task("a@val"), find_task("a/@val")
    assert (folder.name, folder.split) == ("a@val", None)
    assert (split.name, split.split) == ("a", "val")
    assert find_task("a@val@val").split == "val"
    for task in (folder, split):
        again = find_task(task.spec)
        assert (again.name, again.split, again.base_spec) == (task.name, task.split, task.base_spec)
    with pytest.raises(UsageError, match="unknown split 'home'") as caught:
        find_task("b@home")
    assert "check the path of a folder with @ in its name; a/@val is the split val of a folder" in caught.value.hint

"""Folders of images and CSVs."""

import csv
import io
import os
import unicodedata
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.fuzzing import damaged, or_an_error_for_users, texts
from tests.samples import draw_folder
from wisepatch.datasets import folder_or_csv as folder
from wisepatch.datasets.drawn_shapes import SHAPES
from wisepatch.datasets.folder_or_csv import folder_dataset
from wisepatch.datasets.notes import to_tell
from wisepatch.datasets.reading import Reading
from wisepatch.datasets.samples import Subset, labels_of
from wisepatch.datasets.splits import ordered_labels, split_of
from wisepatch.errors import DataError
from wisepatch.tasks import find_task


def task(path):
    return find_task(str(path)).dataset


def test_class_folders_alone_are_split_by_seed_and_class(tmp_path):
    root = draw_folder(tmp_path / "things", per_class=10)
    (root / ".hidden").mkdir()
    dataset = task(str(root))
    assert dataset.classes == tuple(sorted(SHAPES[:3]))
    splits = {s: dataset.split(s, tmp_path) for s in dataset.available_splits}
    assert {s: len(x) for s, x in splits.items()} == {"train": 21, "val": 3, "test": 6}
    for name, each in (("test", 2), ("val", 1)):
        assert np.bincount([label for _, label in splits[name].samples.files]).tolist() == [each] * 3
    assert len({path for split in splits.values() for path, _ in split.samples.files}) == 30
    again = task(str(root)).split("test", tmp_path)
    assert again.samples.files == splits["test"].samples.files


def where(root):
    """The split of each image, by its path below ``root``."""
    dataset = folder.folder_dataset(root)
    parts = {split: dataset.split(split, root) for split in dataset.available_splits}
    return {os.path.relpath(p, root): split for split, part in parts.items() for p, _ in part.samples.files}


def test_images_that_are_added_or_removed_move_no_other(tmp_path):
    root = draw_folder(tmp_path / "things", per_class=10)
    before = where(root)
    for number in range(10, 60):
        (root / "circle" / f"{number}.png").write_bytes(b"")
    (root / "square" / "3.png").unlink()
    draw_folder(root, classes=("star",))
    after = where(root)
    assert {name: after[name] for name in before if name != "square/3.png"} == {
        name: split for name, split in before.items() if name != "square/3.png"
    }
    assert len(after) == len(before) + 55


def test_a_folder_that_lies_elsewhere_is_cut_the_same(tmp_path):
    draw_folder(tmp_path / "here", per_class=10)
    draw_folder(tmp_path / "else where" / "things", per_class=10)
    assert where(tmp_path / "here") == where(tmp_path / "else where" / "things")


def test_shares_are_met_in_expectation():
    names = [f"class {number % 7}/{number}.jpg" for number in range(20_000)]
    drawn = Counter(split_of(name, ("val", "test")) for name in names)
    assert {split: round(count / 20_000, 2) for split, count in drawn.items()} == {
        "train": 0.72,
        "val": 0.08,
        "test": 0.2,
    }
    without_test = Counter(split_of(name, ("val",)) for name in names)
    assert {split: round(count / 20_000, 2) for split, count in without_test.items()} == {"train": 0.9, "val": 0.1}


def test_each_image_is_drawn_once_however_many_classes_there_are(tmp_path, monkeypatch):
    """The work of a cut grows with the number of images: not with that times the number of classes."""
    drawn = []
    monkeypatch.setattr(folder, "split_of", lambda name, missing: drawn.append(name) or "train")
    for number in range(300):
        (tmp_path / "things" / str(number)).mkdir(parents=True)
        (tmp_path / "things" / str(number) / "0.png").touch()
    folder.folder_dataset(tmp_path / "things")
    assert sorted(drawn) == sorted(f"{number}/0.png" for number in range(300))


def test_accents_that_two_systems_write_in_two_ways_go_into_one_split():
    names = [f"café/{number}.jpg" for number in range(100)]
    assert [split_of(unicodedata.normalize("NFD", name), ("test",)) for name in names] == [
        split_of(unicodedata.normalize("NFC", name), ("test",)) for name in names
    ]


def test_groups_that_are_not_found_or_in_several_splits_are_told(shapes, tmp_path):
    told = folder_dataset(shapes, reading=Reading(group=r"(circle|square)/")).notes
    assert "shapes: the group (circle|square)/ is not in the name of 6 images, each a group of its own" in told
    assert not any(
        "group" in note for note in folder_dataset(shapes, reading=Reading(group=r"circle|square|tri")).notes
    )
    for split in ("train", "test"):
        draw_folder(tmp_path / "cut" / split, per_class=2)
    (note,) = [each for each in folder_dataset(tmp_path / "cut", reading=Reading(group=r"\d")).notes if "group" in each]
    assert note == "cut: 2 groups are in more than one split: 0, 1"


def test_images_of_one_group_stay_together(tmp_path):
    for number in range(400):
        (tmp_path / f"{number}.png").write_bytes(b"")
    rows = [f"{number}.png,{'ab'[number % 2]},video {number // 10}" for number in range(400)]
    dataset = task(write_csv(tmp_path / "frames.csv", ["file_name,class,group", *rows]))
    splits = {split: dataset.split(split, tmp_path) for split in dataset.available_splits}
    groups = {split: {int(Path(p).stem) // 10 for p, _ in part.samples.files} for split, part in splits.items()}
    assert sum(map(len, groups.values())) == 40
    assert all(groups.values())


def test_a_class_without_test_or_validation_images_is_said_and_training_goes_on(tmp_path):
    root = draw_folder(tmp_path / "things", per_class=3)
    dataset = task(root)
    absent = [note for note in dataset.notes if "no images of" in note]
    assert absent
    assert all(note.startswith("things: no images of ") and ": " in note for note in absent)
    assert len(dataset.split("train", tmp_path)) > 0


def test_only_the_split_that_is_asked_for_has_to_have_images(tmp_path):
    for label in "ab":
        (tmp_path / "few" / label).mkdir(parents=True)
        (tmp_path / "few" / label / "0.png").write_bytes(b"")
    dataset = task(tmp_path / "few")
    empty = [split for split in dataset.available_splits if not dataset.open.keywords["files"][split]]
    full = next(split for split in dataset.available_splits if split not in empty)
    assert len(dataset.split(full, tmp_path)) > 0
    with pytest.raises(DataError, match=f"too few images to hold out a {empty[0]} split: of 2, none falls into it"):
        dataset.split(empty[0], tmp_path)


def cut(names, fill=True):
    """Return the names in each split, and what is said."""
    files, said = folder._cut(Path("/r"), {"train": [(f"/r/{name}", "") for name in names]}, lambda _: "", fill=fill)
    return {split: {path[3:] for path, _ in listed} for split, listed in files.items()}, said


@given(st.integers(0, 10**6), st.integers(3, 12), st.integers(1, 12))
def test_a_split_that_stays_empty_is_filled_and_no_image_that_was_trained_on_leaves_training(seed, few, more):
    names = [f"{seed}/{number}.jpg" for number in range(few + more)]
    plain, _ = cut(names[:few], fill=False)
    before, said = cut(names[:few])
    after, _ = cut(names)
    assert before["train"] <= after["train"] or not all(before.values())
    if len(plain["train"]) > 2:
        assert all(before.values())
        assert len(said) == sum(not plain[split] for split in ("test", "val"))
    assert all(before[split] == plain[split] for split in ("test", "val") if plain[split])


def test_a_filled_split_is_said_and_checkpoints_of_before_keep_it_empty(tmp_path):
    numbers = (
        n
        for n in range(1000)
        if not cut([f"{label}/{n + i}.png" for label in "ab" for i in range(4)], fill=False)[0]["val"]
    )
    first = next(numbers)
    for label in "ab":
        (tmp_path / "few" / label).mkdir(parents=True)
        for number in range(first, first + 4):
            (tmp_path / "few" / label / f"{number}.png").write_bytes(b"")
    dataset = task(tmp_path / "few")
    assert "few: none of 8 images falls into val by its name, so that 1 image was taken for it" in dataset.notes
    assert len(dataset.split("val", tmp_path)) == 1
    earlier = find_task(f"{tmp_path / 'few'}?bad=skip", cut=2).dataset
    with pytest.raises(DataError, match="none falls into it by its name") as caught:
        earlier.split("val", tmp_path)
    assert "--select-on test" in caught.value.hint
    assert earlier.open.keywords["reading"].bad == "skip"


def test_all_images_are_evaluated_where_all_are_asked_for(tmp_path):
    root = draw_folder(tmp_path / "few", per_class=3)
    whole = find_task(f"{root}@all").dataset.split("all", tmp_path)
    assert len(whole) == 9
    assert sorted(whole.image_ids()) == sorted(map(str, root.rglob("*.png")))
    assert [whole[index][1] for index in range(9)] == labels_of(whole.samples)


def test_the_first_cut_is_made_as_it_was(tmp_path):
    """What checkpoints without a word of their cut were trained on: the parts and the order of classes of version 1."""
    root = draw_folder(tmp_path / "things", per_class=10)
    for number, name in enumerate(("circle", "square", "triangle")):
        (root / name).rename(root / f"class_{(1, 2, 10)[number]}")
        (root / f"class_{(1, 2, 10)[number]}" / "new.avif").write_bytes(b"")
    dataset = find_task(str(root), cut=1).dataset
    assert dataset.classes == ("class 1", "class 10", "class 2")
    parts = {split: dataset.split(split, tmp_path).samples.files for split in dataset.available_splits}
    assert {split: len(part) for split, part in parts.items()} == {"train": 21, "val": 3, "test": 6}
    for label in (1, 2, 10):
        mine = [root / f"class_{label}" / f"{number}.png" for number in range(10)]
        by_hash = sorted(mine, key=lambda p: sha256(os.fsencode(p.relative_to(root))).digest())
        assert set(map(str, by_hash[:2])) == {p for p, _ in parts["test"] if Path(p) in mine}
        assert {str(by_hash[2])} == {p for p, _ in parts["val"] if Path(p) in mine}
    assert find_task(str(root)).dataset.classes == ("class 1", "class 2", "class 10")
    assert find_task(f"typo:{root}", cut=1).dataset.classes == dataset.classes


@pytest.mark.parametrize(
    "names",
    [
        ("class_1", "class_2", "class_10"), ("1.0", "2.0", "10.0"), ("-1", "0", "1"), ("001", "01", "1", "2"),
        ("2", "10", "ant", "bee"), ("a", "a1b2", "a1b10", "a2b1"), ("9" * 4000 + "a", "1" + "0" * 4000 + "a"),
    ],
)  # fmt: skip
def test_labels_are_in_natural_order_and_the_same_in_every_run(names):
    assert ordered_labels(reversed(names)) == ordered_labels(names) == list(names)


def test_classes_that_are_numbers_are_told_once_with_the_way_out(tmp_path, caplog):
    root = draw_folder(tmp_path / "digits")
    for number, name in enumerate(("circle", "square", "triangle")):
        (root / name).rename(root / str(number))
    task(root)
    task(root)
    (told,) = [record.getMessage() for record in caplog.records if "are numbers" in record.getMessage()]
    assert 'digits: the classes are numbers, and a model is asked for "a photo of a 0."' in told
    assert "--classnames, in this order: 0, 1, 2" in told
    assert not any("are numbers" in each for each in to_tell(find_task(str(root), ["a", "b", "c"]).dataset))


def test_split_folders_may_be_called_as_people_call_them(tmp_path):
    draw_folder(tmp_path / "a" / "Train")
    draw_folder(tmp_path / "a" / "TEST")
    assert task(str(tmp_path / "a")).available_splits == ("train", "val", "test")
    assert task(str(tmp_path / "a")).open.keywords["files"]["val"]
    draw_folder(tmp_path / "a" / "valid")
    draw_folder(tmp_path / "a" / "dev")
    with pytest.raises(DataError, match="two folders for one split: dev and valid"):
        task(str(tmp_path / "a"))


def test_folders_of_splits_are_taken_as_they_are(tmp_path):
    root = tmp_path / "things"
    for split, size in (("train", 10), ("val", 2), ("test", 3)):
        draw_folder(root / split, per_class=size, classes=("ring", "star"))
        (root / split / "ring").rename(root / split / "red_ring")
    dataset = task(str(root))
    assert dataset.classes == ("red ring", "star")
    assert {s: len(dataset.split(s, tmp_path)) for s in dataset.available_splits} == {"train": 20, "val": 4, "test": 6}
    assert dataset.splits == ("train", "val", "test")


def test_test_folder_alone_cannot_be_trained_on(tmp_path):
    draw_folder(tmp_path / "things" / "test")
    with pytest.raises(DataError, match="task 'things' has no 'train' split") as caught:
        task(str(tmp_path / "things")).split("train", tmp_path)
    assert caught.value.hint == "it offers test"


def test_class_that_only_one_split_has_is_named(tmp_path):
    draw_folder(tmp_path / "things" / "train", classes=("star", "ring"))
    draw_folder(tmp_path / "things" / "test", classes=("star", "heart"))
    with pytest.raises(DataError, match="class 'heart' is in test and not in train"):
        task(str(tmp_path / "things"))


def test_folder_of_loose_images_says_what_is_expected(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="holds no class folders") as caught:
        task(str(tmp_path))
    assert "path,label" in caught.value.hint


def write_csv(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_csv_with_and_without_splits(shapes, tmp_path):
    labels = sorted(p.name for p in shapes.iterdir())
    rows = [f"shapes/{label}/{i}.png,{label}" for label in labels for i in range(6)]
    plain = task(write_csv(tmp_path / "plain.csv", ["path,label", *rows]))
    assert plain.name == "plain"
    assert {s: len(part) for s, part in plain.open.keywords["files"].items()} == {"train": 14, "val": 1, "test": 3}
    marked = [f"{row},{'test' if '/5.' in row else 'train'}" for row in rows]
    split = task(write_csv(tmp_path / "split.csv", ["path,label,split", *marked])).split("test", tmp_path)
    assert len(split) == 3
    assert split[0][0].size == (64, 64)


def test_csv_with_numbers_keeps_their_order(shapes, tmp_path):
    files = sorted(shapes.rglob("*.png"))[:12]
    for below in ("a", "b", "c"):
        for i, path in enumerate(files):
            (tmp_path / below).mkdir(exist_ok=True)
            (tmp_path / below / f"{i}.png").write_bytes(path.read_bytes())
    rows = [
        f"{below}/{i}.png, {i}, {split}"
        for split, below in (("train", "a"), ("val", "b"), ("Test", "c"))
        for i in range(12)
    ]
    assert task(write_csv(tmp_path / "n.csv", ["Path,Label,Split", *rows])).classes == tuple(map(str, range(12)))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["where,label", "a.png,star"], "has no column path; its first line has: where, label"),
        (["a.png;star"], "has no column label and no column path; its first line has: a.png, star"),
        (["path,label", "shapes/circle/0.png,a", "shapes/circle/0.png,b"], "names .*circle/0.png twice"),
        (["path,label,split", "shapes/circle/0.png,circle,later"], "line 2: unknown split 'later'"),
        (["path,label", "https://x.org/0.png,circle"], "line 2: https://x.org/0.png is an address"),
        (["path,label", "shapes/circle/0.png,"], "line 2: an empty path or label"),
        (["path,label", "shapes/circle/99.png,circle"], "names 1 missing file, the first"),
        (["path,label", "shapes/circle/0.png,circle", "shapes/circle/1.png,circle"], "has one class, 'circle'"),
        (["path,label"], "lists no images"),
        ([], "has no column label and no column path; its first line has: nothing"),
        (["path,label", "shapes/circle/0.png,a", "shapes/x/../circle/0.png,b"], "names .*circle/0.png twice"),
        (["path,label,split", "shapes/circle/0.png,a,train", "./shapes/circle/../circle/0.png,a,test"], "0.png twice"),
        (
            ["path,label", "shapes/circle/0.png,a", f'"{"x" * 200_000}",b'],
            r"bad\.csv, line 3: field larger than field limit",
        ),
        ([f"path,label,{'x' * 200_000}"], r"bad\.csv, line 1: field larger than field limit"),
        (
            ["path,label", "shapes/circle/0.png,a", "0\0.png,b"],
            "(names 1 missing file|line 3: line contains NUL)",
        ),
        (
            ["path,label", "shapes/circle/0.png,a", f"{'x' * 300}.png,b"],
            "names 1 missing file, the first .*xxx",
        ),
        (["path,label", "shapes/circle/0.png,a", "~nobody-of-this-name/1.png,b"], "names 1 missing file"),
    ],
)
def test_bad_csv_names_line_and_reason(shapes, tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        task(write_csv(tmp_path / "bad.csv", lines))


@pytest.mark.parametrize(
    ("first", "second"), [("a_b", "a b"), ("Cat", "cat"), ("red  fox", "Red_fox"), ("caf\u00e9", "cafe\u0301")]
)
def test_two_classes_of_one_name_are_named_with_the_ways_out(shapes, tmp_path, first, second):
    rows = [f"shapes/circle/{i}.png,{(first, second, 'other')[i % 3]}" for i in range(6)]
    with pytest.raises(DataError, match="have one name") as caught:
        task(write_csv(tmp_path / "twins.csv", ["path,label", *rows]))
    assert repr(first) in caught.value.message
    assert repr(second) in caught.value.message
    assert "rename one of them" in caught.value.hint
    assert "the same label" in caught.value.hint
    for number, name in enumerate((first, second)):
        (shapes / ("circle", "square")[number]).rename(shapes / name)
    with pytest.raises(DataError, match="have one name"):
        task(shapes)


def test_twins_in_two_splits_are_named_too(tmp_path):
    draw_folder(tmp_path / "things" / "train", classes=("star", "ring"))
    draw_folder(tmp_path / "things" / "test", classes=("star", "ring"))
    (tmp_path / "things" / "test" / "ring").rename(tmp_path / "things" / "test" / "Ring")
    with pytest.raises(DataError, match="the classes 'Ring' and 'ring' have one name"):
        task(tmp_path / "things")


def test_two_folders_of_one_split_are_named(tmp_path):
    for split in ("train", "Train", "test"):
        draw_folder(tmp_path / "things" / split)
    with pytest.raises(DataError, match="two folders for one split: Train and train"):
        task(tmp_path / "things")


def test_csv_in_another_encoding_is_named(tmp_path):
    (tmp_path / "latin.csv").write_bytes("path,label\n0.png,Käse\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv is not a text file in UTF-8"):
        task(tmp_path / "latin.csv")


def test_image_ids_are_the_paths_as_given_also_of_a_part(shapes, tmp_path):
    names = sorted(p.name for p in shapes.iterdir())
    word = ("train", "train", "train", "train", "val", "test")
    rows = [f"shapes/../shapes/{name}/{i}.png,{name},{word[i]}" for name in names for i in range(6)]
    dataset = task(write_csv(tmp_path / "ids.csv", ["path,label,split", *rows]))
    test, train = dataset.split("test", tmp_path), dataset.split("train", tmp_path)
    assert test.image_ids() == [f"{tmp_path}/shapes/../shapes/{name}/5.png" for name in names]
    assert set(train.image_ids()).isdisjoint(dataset.split("val", tmp_path).image_ids())
    ids = Subset(test.samples, [2, 0]).image_ids()
    assert ids == [test.image_ids()[2], test.image_ids()[0]]


def test_a_field_that_no_csv_has_is_an_error(tmp_path):
    (tmp_path / "long.csv").write_text(f"path,label\n{'x' * 200_000},a\n")
    with pytest.raises(DataError, match=r"long\.csv, line \d: field larger than field limit"):
        task(tmp_path / "long.csv")
    (tmp_path / "open.csv").write_text('path,label\n"' + "x,a\n" * 50_000)
    with pytest.raises(DataError, match="field larger than field limit") as caught:
        task(tmp_path / "open.csv")
    assert "quotation mark" in caught.value.hint


def test_class_folders_whose_names_are_no_text_are_refused(tmp_path):
    root = draw_folder(tmp_path / "things")
    (root / "circle").rename(root / os.fsdecode(b"bad\xff"))
    with pytest.raises(DataError, match=r"the name of the class folder .*/things/bad\\xff is not in UTF-8") as caught:
        task(root)
    assert caught.value.hint == "rename it"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("fuzzed") / "shapes", per_class=3)


WHOLE = "path,label,split\n" + "".join(
    f"shapes/{shape}/{i}.png,{shape},{('train', 'val', 'test')[i]}\n" for shape in SHAPES[:3] for i in range(3)
)
cells = texts | st.sampled_from(
    ["shapes/circle/0.png", "shapes/circle/../circle/1.png", "a", "b", "test", "TRAIN", "~/x", "~nobody/x"]
)


def as_csv(rows):
    table = io.StringIO()
    csv.writer(table, quoting=csv.QUOTE_ALL).writerows(rows)
    return table.getvalue()


@given(
    st.just(WHOLE.encode()).flatmap(damaged)
    | st.lists(st.lists(cells, min_size=1, max_size=4), max_size=6).map(
        lambda rows: (WHOLE + as_csv(rows)).encode(errors="surrogatepass")
    )
)
def test_fuzzed_csvs_become_tasks_or_give_an_error(pictures, data):
    path = pictures.parent / "fuzzed.csv"
    path.write_bytes(data)
    with or_an_error_for_users:
        dataset = task(path)
        for split in dataset.available_splits:
            opened = dataset.split(split, pictures)
            opened.fingerprint()
            assert all(opened[index][0].mode == "RGB" for index in range(len(opened)))

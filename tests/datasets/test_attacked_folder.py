"""Attacked folders in the published convention: names of files, folders as tasks, and their index."""

import csv
import io
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.fuzzing import damaged, or_an_error_for_users
from wisepatch import find_task
from wisepatch.datasets.attacked_folder import (
    COLUMNS,
    MAX_NAME_BYTES,
    as_text,
    attacked_folder,
    file_name,
    parse_name,
)
from wisepatch.errors import DataError, UsageError

ODD = (
    "dog", "hot_dog", "a=b", "and/or", "a_text=b", "label=x", "50%", "%3D", "Zürich", "кошка", "🐈", 'q"q', "x_id=3", "..",
    " a ", "a\nb",
)  # fmt: skip


@settings(max_examples=400)
@given(st.text(min_size=1) | st.sampled_from(ODD), st.text(min_size=1) | st.sampled_from(ODD), st.booleans())
@example("x" * (MAX_NAME_BYTES - 1) + "=", "x" * (MAX_NAME_BYTES - 2) + "=", False)  # cut within the escape of =
@example("é" * MAX_NAME_BYTES, "x" + "é" * MAX_NAME_BYTES, True)
def test_names_of_files_are_reversible_and_names_on_every_file_system(label, text, twice):
    taken = set()
    name = file_name(label, text, 0, taken)
    if twice:
        name = file_name(label, text, 123456, taken)
        assert name.endswith("_id=123456.png")
    assert not set(name) & set('/\\:*?"<>|\0\n')
    assert len(name.encode()) <= 255
    assert name.startswith("label=")
    found = parse_name(name.removesuffix(".png"))
    for kept, original in zip(found, (label, text), strict=True):
        if len(original.encode()) * 3 <= MAX_NAME_BYTES:
            assert kept == original
        else:
            assert original.startswith(kept)  # cut, and never within an escape


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(("a", "A", "ß", "ss", "é", "e\u0301", "x" * 99, "x" * 98)),
                          st.sampled_from(("b", "B", "b_id=1", "b=")))))  # fmt: skip
def test_names_of_files_are_unique_in_any_case_and_form(pairs):
    import unicodedata

    taken = {"index.csv"}
    found = [file_name(label, text, number, taken) for number, (label, text) in enumerate(pairs)]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in found}) == len(found)


def photo(path, color="red"):
    Image.new("RGB", (24, 24), color).save(path)


def photos(folder, *files):
    folder.mkdir(parents=True)
    for name in files:
        photo(folder / name)
    return folder


def test_folder_of_110_photos_in_the_published_convention_is_a_task(tmp_path):
    animals = ("dog", "cat", "hot_dog", "Zürich", "bell pepper", "50% wool", "car")
    folder = tmp_path / "photos"
    folder.mkdir()
    pairs = [(a, b) for a in animals for b in animals if a != b]
    pairs = (pairs * 3)[:110]
    for number, (label, text) in enumerate(pairs):
        again = f"_id={number}" if number >= len(animals) * 6 else ""
        photo(folder / f"label={label}_text={text}{again}.{('png', 'jpg')[number % 2]}")
    (folder / ".DS_Store").write_bytes(b"")
    (folder / f"._{next(folder.iterdir()).name}").write_bytes(b"no image")
    (folder / "README.md").write_text("photos")
    task = find_task(str(folder))
    assert task.dataset.classes == ("50% wool", "bell pepper", "car", "cat", "dog", "hot dog", "Zürich")
    assert task.dataset.available_splits == ("test",)
    assert task.dataset.extra_metrics == ("attack_success", "neither")
    opened = task.dataset.split("test", tmp_path)
    assert len(opened) == 110
    found = sorted((opened.classes[opened[i][1]], opened.classes[opened.annotations.written[i]]) for i in range(110))
    assert found == sorted((a.replace("_", " "), b.replace("_", " ")) for a, b in pairs)
    with pytest.raises(UsageError, match="photos are written on already"):
        find_task(f"typo:{folder}")
    assert find_task(f"{folder}@test").spec == f"{folder}@test"
    with pytest.raises(DataError, match="has no 'val' split"):
        find_task(f"{folder}@val").dataset.split("val", tmp_path)


def test_class_names_may_be_originaland_texts_that_are_none_are_no_class(tmp_path):
    folder = photos(tmp_path / "p", "label=hot_dog_text=Cat.png", "label=cat_text=iPod.png")
    task = attacked_folder(folder, ("cat", "Hot Dog", "horse"))
    assert task.classes == ("cat", "Hot Dog", "horse")
    opened = task.split("test", tmp_path)
    assert [opened[i][1] for i in range(2)] == [0, 1]
    assert list(opened.annotations.written) == [-1, 0]
    assert find_task(str(folder), ["cat", "Hot Dog", "horse"], ["a {}"]).dataset.classes == task.classes
    with pytest.raises(UsageError) as caught:
        attacked_folder(folder, ("cat", "horse"))
    assert caught.value.message == f"1 labels of {folder} are not among the class names: hot dog"


def test_what_cannot_be_read_is_skipped_with_the_text_on_it_where_that_is_asked_for(tmp_path, caplog):
    folder = photos(tmp_path / "p", "label=a_text=b.png", "label=b_text=c.png", "label=c_text=a.png")
    (folder / "label=a_text=b.png").write_text("no image")
    for word, names in ((f"{folder}?bad=skip", None), (f"corrupt:{folder}?bad=skip:fog:3", ["a", "b", "c"])):
        opened = find_task(word, names).dataset.split("test", tmp_path)
        assert [opened[i][1] for i in range(len(opened))] == [1, 2]
        assert list(opened.annotations.written) == [2, 0]
    assert "1 of 3 images cannot be read and are skipped" in caplog.text


def test_images_without_the_convention_are_named_and_counted(tmp_path):
    files = [f"IMG_{i}.jpg" for i in range(5)] + ["label=dog_text=.png", "label=dog_text=cat.png"]
    folder = photos(tmp_path / "p", *files)
    with pytest.raises(DataError) as caught:
        find_task(str(folder))
    assert caught.value.message == (
        f"6 of 7 images in {folder} are not called label=..._text=...: IMG_0.jpg, IMG_1.jpg, IMG_2.jpg, and 3 more"
    )
    assert "index.csv" in caught.value.hint


@pytest.mark.parametrize("name", ["label=a_text=b_text=c.png", "label=a_label=b_text=c.png"])
def test_names_that_can_be_read_in_two_ways_are_named(tmp_path, name):
    folder = photos(tmp_path / "p", name, "label=dog_text=cat.png")
    with pytest.raises(DataError) as caught:
        attacked_folder(folder)
    assert caught.value.message == f"in {folder} 1 name can be read in two ways: {name}"
    assert "%3D" in caught.value.hint
    (folder / name).rename(folder / "label=a_text%3Db_text=c.png")  # as the hint says
    assert "a text=b" in attacked_folder(folder).classes


def test_folder_without_images_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no images") as caught:
        attacked_folder(tmp_path / "empty")
    assert "label=dog_text=cat.png" in caught.value.hint


def write_index(folder, rows, columns=("path", "label", "text")):
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    (folder / "index.csv").write_text(text.getvalue(), newline="")
    return folder


def test_index_carries_the_truth_whatever_the_files_are_called(tmp_path):
    folder = photos(tmp_path / "p", "1.png", "2.png", "label=x_text=y.png")
    odd = 'a_b, "c"\nd'
    write_index(folder, [("2.png", odd, "=_%/"), ("1.png", "=_%/", odd)])
    (folder / "index.csv").write_bytes(b"\xef\xbb\xbf" + (folder / "index.csv").read_bytes())  # as Excel writes it
    task = find_task(str(folder))
    assert task.dataset.classes == ("=_%/", odd)
    opened = task.dataset.split("test", tmp_path)
    assert [opened[i][1] for i in range(len(opened))] == [1, 0]
    assert list(opened.annotations.written) == [0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\n1.png,dog\n", "index.csv has no column text"),
        (b"image\n1.png\n", "index.csv has no column label and no column path and no column text"),
        (b"", "index.csv has no column label and no column path and no column text"),
        (b"path,label,text\n", "index.csv names no images"),
        (b"path,label,text\n1.png,dog\n", "index.csv, line 2: an empty path, label or text"),
        (b"text,label,path\ncat,dog\n", "index.csv, line 2: an empty path, label or text"),
        (b"path,label,text\n1.png,,cat\n", "index.csv, line 2: an empty path, label or text"),
        (b"path,label,text\n3.png,dog,cat\n4.png,dog,cat\n", "names 2 missing images: 3.png, 4.png"),
        (b"path,label,text\n1.png,d\xff,cat\n", "index.csv is not a text file in UTF-8"),
        (b'path,label,text\n1.png,"' + b"d" * 200_000 + b'",cat\n', "index.csv, line 2: field larger"),
        (b"path,label,text\n1.png,dog,cat\n1.png,d\0g,cat\n", "index.csv, line 3: a NUL character"),
        (b"path,label,text\n" + b"x" * 300 + b".png,dog,cat\n", "names 1 missing image: xxx"),
        (b"path,label,text\n~nouser/1.png,dog,cat\n", "names 1 missing image: 1.png"),
    ],
)
def test_index_that_does_not_fit_says_so(tmp_path, content, message):
    folder = photos(tmp_path / "p", "1.png")
    (folder / "index.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        attacked_folder(folder)
    assert message in caught.value.message
    assert caught.value.hint


def test_class_folders_beside_an_index_of_something_else_stay_class_folders(shapes):
    (shapes / "index.csv").write_text("file,split\na.png,train\n")
    assert find_task(str(shapes)).dataset.classes == ("circle", "square", "triangle")
    (shapes / "index.csv").write_bytes(b"\xff\xfe\x00")
    assert find_task(str(shapes)).dataset.family == "folder"


def test_columns_of_the_index_begin_with_those_that_are_needed():
    assert COLUMNS[:3] == ("path", "label", "text")


INDEX = 'path,label,text,image,task,split,seed\n"a.png","dog","cat",0,"Pets","test",0\n"b.png","\'=1+1","\'-2",1,"Pets","test",0\n'


def test_names_that_a_spreadsheet_would_compute_are_read_back(tmp_path):
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "index.csv").write_text(INDEX)
    assert set(attacked_folder(tmp_path).classes) == {"dog", "cat", "=1+1", "-2"}
    assert [as_text(name) for name in ("=1+1", "+a", "-a", "@a", "'a", "a=", "\ta")] == [
        "'=1+1",
        "'+a",
        "'-a",
        "'@a",
        "''a",
        "a=",
        "'\ta",
    ]


@given(st.just(INDEX.encode()).flatmap(damaged))
def test_fuzzed_indexes_become_tasks_or_give_an_error(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "fuzzed-index"
    if not folder.is_dir():
        folder.mkdir()
        for name in "ab":
            Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    (folder / "index.csv").write_bytes(data)
    with or_an_error_for_users:
        opened = find_task(str(folder)).dataset.split("test", folder)
        assert opened.annotations.written is not None
        assert [opened[index][0].size for index in range(len(opened))] == [(8, 8)] * len(opened)


def test_a_folder_whose_name_is_no_utf_8_has_a_name_that_is(tmp_path):
    folder = tmp_path / os.fsdecode(b"att\xe9")
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "label=dog_text=cat.png")
    assert attacked_folder(folder).name == r"att\xe9"

"""CSVs as people have them."""

import codecs
import os
import unicodedata

import pytest

from wisepatch.datasets.csv_listing import csv_images, list_csv
from wisepatch.datasets.folder_or_csv import csv_dataset
from wisepatch.datasets.notes import to_tell
from wisepatch.errors import DataError

ROWS = [("shapes/circle/0.png", "circle"), ("shapes/square/1.png", "square")]


def listed(path, columns=None):
    files = list_csv(path, columns).files
    return {split: [(os.path.relpath(p, path.parent), label) for p, label in each] for split, each in files.items()}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_line_ends_and_encodings_are_found_out(shapes, separator, ending, encoding):
    path = shapes.parent / "set.csv"
    path.write_bytes(ending.join(map(separator.join, [("path", "label"), *ROWS])).encode(encoding))
    assert listed(path) == {"train": ROWS}
    if separator == "\t":
        path.rename(path.with_suffix(".tsv"))
        assert listed(path.with_suffix(".tsv")) == {"train": ROWS}


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_both_orders_of_utf_16_are_read(shapes, mark):
    form = "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"
    path = shapes.parent / "set.csv"
    path.write_bytes(mark + "path,label\nshapes/circle/0.png,Käse".encode(form))
    assert listed(path) == {"train": [("shapes/circle/0.png", "Käse")]}


@pytest.mark.parametrize(
    "header",
    ["file_name,class", "image,label", "filepath,category", "Image,Class_Name", " filename , target ", "path,label"],
)
def test_columns_are_known_by_what_people_call_them(shapes, header):
    path = shapes.parent / "set.csv"
    path.write_text("\n".join([header, *map(",".join, ROWS)]))
    assert listed(path) == {"train": ROWS}


def test_columns_can_be_named(shapes):
    path = shapes.parent / "set.csv"
    path.write_text(
        "label,species,photo,fold\nx,circle,shapes/circle/0.png,dev\nx,square,shapes/square/1.png,training\n"
    )
    columns = {"path": "Photo", "label": "species", "split": "fold"}
    assert listed(path, columns) == {"val": ROWS[:1], "train": ROWS[1:]}
    with pytest.raises(DataError, match="has no column kind; its first line has: label, species, photo, fold"):
        list_csv(path, {"path": "photo", "label": "kind"})


def test_commas_in_quotation_marks_are_part_of_the_name(shapes):
    (shapes / "circle" / "0.png").rename(shapes / "a, b.png")
    path = shapes.parent / "set.csv"
    path.write_text('path,label\n"shapes/a, b.png","fox, red"\n')
    assert listed(path) == {"train": [("shapes/a, b.png", "fox, red")]}


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("training", "train"), ("Valid", "val"), ("dev", "val"), ("validation", "val"),
        ("testing", "test"), ("", "train"),
    ],
)  # fmt: skip
def test_words_for_splits_are_those_of_folders(shapes, word, split):
    path = shapes.parent / "set.csv"
    path.write_text(f"path,label,split\nshapes/circle/0.png,circle,{word}\n")
    assert listed(path) == {split: ROWS[:1]}


@pytest.mark.parametrize(
    "names",
    [
        ("shapes/circle/0", "shapes/square/1"),
        ("circle/0", "1"),
        ("Shapes/Circle/0.PNG", "a"),
        (r"shapes\circle\0.png", "b"),
    ],
)
def test_ids_without_suffix_or_folder_and_names_in_other_letters_are_an_error_that_says_so(shapes, names):
    path = shapes.parent / "set.csv"
    path.write_text("id,label\n" + "".join(f"{name},{number}\n" for number, name in enumerate(names)))
    with pytest.raises(DataError, match="names 2 missing files") as caught:
        list_csv(path)
    hint = "names are taken letter by letter, with folder and suffix: shapes/circle/0.png is there"
    assert caught.value.hint == hint


@pytest.mark.parametrize(("written", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_found_as_one_sign_or_two(shapes, written, on_disk):
    folder, path = shapes / unicodedata.normalize(on_disk, "Café"), shapes.parent / "set.csv"
    (shapes / "circle").rename(folder)
    names = [f"shapes/{unicodedata.normalize(form, 'Café')}/0.png" for form in (written, on_disk)]
    path.write_text("path,label\n" + "".join(f"{name},Café\n" for name in names))
    listing = list_csv(path)
    assert listing.files == {"train": [(str(folder / "0.png"), "Café")]}
    assert listing.repeated == 1
    assert csv_images(path) == [str(folder / "0.png")]


def test_a_missing_file_that_nothing_is_like_is_named(tmp_path):
    (tmp_path / "set.csv").write_text("path,label\n../x/0.png,a\n")
    with pytest.raises(DataError, match=r"names 1 missing file, the first .*\.\./x/0\.png") as caught:
        list_csv(tmp_path / "set.csv")
    assert caught.value.hint == "paths are read relative to the folder of the CSV"


def test_a_row_that_is_repeated_is_taken_once_and_counted(shapes):
    path = shapes.parent / "set.csv"
    path.write_text("\n".join(["path,label", *map(",".join, [*ROWS, ROWS[0], ("shapes/x/../circle/0.png", "circle")])]))
    assert listed(path) == {"train": ROWS}
    assert "set.csv: 2 repeated rows, taken once" in to_tell(csv_dataset(path))


def test_images_outside_of_the_folder_are_named(shapes):
    (shapes.parent / "csv").mkdir()
    path = shapes.parent / "csv" / "set.csv"
    path.write_text(f"path,label\n../shapes/circle/0.png,circle\n{shapes}/square/1.png,square\n")
    (told,) = [note for note in to_tell(csv_dataset(path)) if "outside" in note]
    assert told == f"set.csv: 2 images outside of {path.parent}: ../shapes/circle/0.png, {shapes}/square/1.png"


@pytest.mark.parametrize("address", ["https://x.org/a.png", "http://x.org/a.png", "s3://bucket/a.png", "file:///a.png"])
def test_an_address_is_no_file(shapes, address):
    path = shapes.parent / "set.csv"
    path.write_text(f"path,label\n{address},circle\n")
    with pytest.raises(DataError, match=f"set.csv, line 2: {address} is an address"):
        list_csv(path)


def test_two_columns_of_one_name_are_an_error(tmp_path):
    (tmp_path / "a.csv").write_text("path,label,note,note\n")
    assert list_csv(tmp_path / "a.csv").files == {}
    (tmp_path / "b.csv").write_text("path,label,label\n")
    with pytest.raises(DataError, match=r"has 2 columns called label; its first line has: path, label, label"):
        list_csv(tmp_path / "b.csv")


def test_fields_beyond_the_header_are_an_error_where_they_hold_something(shapes, tmp_path):
    (tmp_path / "a.csv").write_text("path,label\nshapes/circle/0.png,round,,\n")
    assert listed(tmp_path / "a.csv") == {"train": [("shapes/circle/0.png", "round")]}
    (tmp_path / "b.csv").write_text("path,label\nshapes/circle/0.png,round, and red\n")
    with pytest.raises(DataError, match=r"b\.csv, line 2: more fields than the first line has columns") as caught:
        list_csv(tmp_path / "b.csv")
    assert "quotation marks" in caught.value.hint


def test_a_folder_in_the_place_of_an_image_is_said(shapes, tmp_path):
    (tmp_path / "a.csv").write_text("path,label\nshapes/circle,round\n")
    with pytest.raises(DataError, match=r"names 1 missing file, the first .*circle") as caught:
        list_csv(tmp_path / "a.csv")
    assert caught.value.hint == "it is a folder: name each image in it"

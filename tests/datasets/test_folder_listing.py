"""What a folder holds, and what is left out of it."""

import os

import pytest
from PIL import Image

from tests.samples import draw_folder
from wisepatch.datasets import decoding
from wisepatch.datasets.folder_listing import list_folder
from wisepatch.datasets.folder_or_csv import folder_dataset
from wisepatch.datasets.notes import to_tell
from wisepatch.errors import DataError

ODD = {
    "a.avif": "AVIF", "b.jfif": "JPEG", "c.jpe": "JPEG", "d.jp2": "JPEG2000", "e.mpo": "JPEG", "f.tga": "TGA", "G.JPG": "JPEG",
    "H.PnG": "PNG", "no_suffix": "PNG", "photo.1": "JPEG", "i.apng": "PNG", "j.pbm": "PPM",
}  # fmt: skip
LITTER = (
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    "._0.png",
    "__MACOSX/circle/0.png",
    ".ipynb_checkpoints/0-checkpoint.png",
)


def write(path, data=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def names(root, split="train"):
    return {os.path.relpath(path, root) for path, _ in list_folder(root).files[split]}


def test_whatever_can_be_read_is_an_image_whatever_it_is_called(tmp_path):
    root = draw_folder(tmp_path / "things", per_class=2)
    for name, form in ODD.items():
        Image.new("1" if form == "PPM" else "RGB", (16, 16), "white").save(root / "circle" / name, form)
    assert {f"circle/{name}" for name in ODD} <= names(root)
    assert not list_folder(root).left_out
    for path, _ in list_folder(root).files["train"]:
        assert decoding.read_rgb(path).mode == "RGB"


def test_what_is_left_out_is_named_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "reads_heif", lambda: False)
    root = draw_folder(tmp_path / "things", per_class=2)
    write(root / "circle" / "notes.txt", b"P1 is the best of all")
    write(root / "circle" / "deep" / "photo.CR2", b"II*\0")
    write(root / "circle" / "photo.heic")
    Image.new("RGB", (16, 16)).save(root / "circle" / "icon.ico")
    Image.new("RGB", (16, 16)).save(root / "circle" / "photo.ico", "PNG")  # whatever it is called
    write(root / "circle" / ".old.png")
    write(root / "loose.png")
    (root / "circle" / "gone.png").symlink_to("nowhere")
    assert list_folder(root).left_out == {
        "no image": ["circle/notes.txt"],
        "a camera's raw format": ["circle/deep/photo.CR2"],
        "an image in a format that is not read: save it as PNG": ["circle/icon.ico"],
        "HEIC, which takes the package pillow-heif": ["circle/photo.heic"],
        "hidden: its name begins with a dot": ["circle/.old.png"],
        "beside the class folders": ["loose.png"],
        "a link to nothing, or no file": ["circle/gone.png"],
    }
    (told,) = to_tell(folder_dataset(root))[-1:]
    assert told.startswith("things: 7 left out (1: beside the class folders; ")
    assert told.endswith(f"`wisepatch datasets check {root}` names them")


def test_heic_is_read_where_its_package_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "reads_heif", lambda: True)
    root = draw_folder(tmp_path / "things", per_class=2)
    write(root / "circle" / "photo.HEIC")
    assert "circle/photo.HEIC" in names(root)


def test_what_systems_and_programs_leave_behind_is_no_data(tmp_path):
    root = draw_folder(tmp_path / "things", per_class=2)
    before = names(root)
    for place in (root, root / "circle"):
        for name in LITTER:
            write(place / name, (root / "square" / "0.png").read_bytes())
    assert names(root) == before
    assert not list_folder(root).left_out
    splits = draw_folder(tmp_path / "cut" / "train").parent
    for name in LITTER:
        write(splits / name)
        write(splits / "train" / name)
    assert (set(list_folder(splits).files), list_folder(splits).left_out) == ({"train"}, {})


def test_links_are_followed_once_and_circles_end(tmp_path):
    root = draw_folder(tmp_path / "things", per_class=2)
    elsewhere = draw_folder(tmp_path / "elsewhere", per_class=2, classes=("ring", "star"))
    (root / "ring").symlink_to(elsewhere / "ring")
    (root / "circle" / "more").symlink_to(elsewhere / "star")
    (root / "circle" / "again").symlink_to(root / "circle")
    (root / "circle" / "up").symlink_to(root)
    (root / "circle" / "twice").symlink_to(root / "circle" / "more")
    (root / "circle" / "self").symlink_to("self")
    listing = list_folder(root)
    assert {f"ring/{n}.png" for n in range(2)} <= names(root)
    assert len(names(root)) == 10
    assert listing.left_out["a link to a folder that is listed already"] == [
        "circle/again",
        "circle/twice",
        "circle/up",
    ]
    assert listing.left_out["a link to nothing, or no file"] == ["circle/self"]
    assert listing.outside == 3
    assert "3 links lead to places outside of" in to_tell(folder_dataset(root))[0]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("training", "validation", "testing"), ("Train", "valid", "Test"), ("train", "dev", "test")],
)
def test_splits_are_known_by_what_people_call_them(tmp_path, train, val, test):
    for name in (train, val, test):
        draw_folder(tmp_path / "things" / name, per_class=2)
    listing = list_folder(tmp_path / "things")
    assert {split: len(files) for split, files in listing.files.items()} == {"train": 6, "val": 6, "test": 6}


def test_unlabelled_images_beside_train_are_for_predict(tmp_path):
    root = tmp_path / "things"
    draw_folder(root / "train")
    write(root / "test" / "0.png")
    listing = list_folder(root)
    assert (set(listing.files), listing.left_out) == ({"train"}, {"unlabelled (for predict)": ["test/0.png"]})


def test_a_folder_beside_the_splits_is_named(tmp_path):
    root = tmp_path / "things"
    draw_folder(root / "train")
    draw_folder(root, classes=("star",))
    write(root / "readme.png")
    assert list_folder(root).left_out == {
        "beside the splits": ["readme.png"],
        "in a folder beside the splits, and none of them": [f"star/{number}.png" for number in range(6)],
    }


def test_a_class_that_is_called_like_a_split_is_a_class(tmp_path):
    root = draw_folder(tmp_path / "things", classes=("circle", "star"))
    (root / "star").rename(root / "training")
    assert folder_dataset(root).classes == ("circle", "training")


def test_a_folder_wrapped_around_everything_is_looked_through(tmp_path):
    draw_folder(tmp_path / "things" / "archive" / "data" / "train")
    write(tmp_path / "things" / "__MACOSX" / "x")
    dataset = folder_dataset(tmp_path / "things")
    assert (dataset.name, len(dataset.classes)) == ("things", 3)
    assert f"the classes are taken from {tmp_path / 'things' / 'archive' / 'data'}" in to_tell(dataset)[0]
    draw_folder(tmp_path / "more" / "images")
    write(tmp_path / "more" / "README.md")
    write(tmp_path / "more" / "images" / "loose.png")
    dataset = folder_dataset(tmp_path / "more")
    assert len(dataset.classes) == 3
    assert dataset.left_out == {
        "beside the folder that holds all": ("README.md",),
        "beside the class folders": ("images/loose.png",),
    }
    (tmp_path / "round").mkdir()
    (tmp_path / "round" / "self").symlink_to(tmp_path / "round")
    with pytest.raises(DataError, match="holds no images"):
        folder_dataset(tmp_path / "round")


@pytest.mark.parametrize(
    ("outer", "inner", "said"),
    [
        (("2023", "2024"), ("cat", "dog"), "if those are the classes, name the images in a CSV with path,label"),
        (("cat", "dog"), ("test", "train"), "if those are the splits, put the classes into them"),
        (("cat", "dog"), ("indoors", "."), ""),
        (("cat", "dog"), ("one", "own {}"), ""),
    ],
)
def test_folders_that_hold_the_same_folders_may_be_no_classes(tmp_path, outer, inner, said):
    for name in outer:
        for folder in inner:
            write(tmp_path / "pets" / name / folder.format(name) / "0.png")
    notes = [note for note in folder_dataset(tmp_path / "pets").notes if "taken for classes" in note]
    taken = f"pets: {', '.join(outer)} are taken for classes, and each holds {', '.join(inner)}; {said}"
    assert notes == [taken] * bool(said)


def test_a_folder_wrapped_around_the_classes_of_each_split_is_looked_through(tmp_path):
    for split in ("train", "test"):
        draw_folder(tmp_path / "intel" / split / f"seg_{split}", per_class=3)
    dataset = folder_dataset(tmp_path / "intel")
    assert dataset.classes == ("circle", "square", "triangle")
    first, second = (tmp_path / "intel" / split / f"seg_{split}" for split in ("test", "train"))
    assert dataset.notes[0] == f"intel: the classes are taken from {first}, {second}"
    assert not dataset.left_out
    write(tmp_path / "intel" / "train" / "notes.txt")
    assert folder_dataset(tmp_path / "intel").left_out == {"beside the folder that holds all": ("train/notes.txt",)}
    draw_folder(tmp_path / "intel" / "test", classes=("star",))  # beside the wrapper, which is a class then
    with pytest.raises(DataError, match="class 'seg_test' is in test and not in train"):
        folder_dataset(tmp_path / "intel")


def test_folders_that_may_be_splits_and_are_taken_for_classes_are_named(tmp_path):
    for name in ("seg_train", "Test-images", "other"):
        draw_folder(tmp_path / "intel" / name)
    assert "intel: Test-images, seg_train are taken for classes; if they are splits, call them test, train" in to_tell(
        folder_dataset(tmp_path / "intel")
    )
    for one, other in (("train", "car"), ("a test", "a dev")):
        things = draw_folder(tmp_path / one, classes=("circle", "star"))
        (things / "circle").rename(things / f"a {one}")
        (things / "star").rename(things / other)
        assert not [note for note in to_tell(folder_dataset(things)) if "if they are splits" in note]


@pytest.mark.parametrize("below", [".", "more"])
def test_one_class_is_no_wrapper(tmp_path, below):
    draw_folder(tmp_path / "things", classes=("star",))
    write(tmp_path / "things" / "star" / below / "8.png")
    with pytest.raises(DataError, match="has one class, 'star'"):
        folder_dataset(tmp_path / "things")


def test_a_class_folder_without_images_says_what_it_holds(tmp_path):
    root = draw_folder(tmp_path / "things")
    write(root / "empty" / "notes.txt", b"none")
    with pytest.raises(DataError, match=r"class folder .*/empty holds no images") as caught:
        folder_dataset(root)
    assert caught.value.hint == "add some, or remove it (1 left out: no image)"


def test_names_of_files_are_taken_as_they_are(tmp_path):
    root = draw_folder(tmp_path / "things", per_class=1)
    odd = ("new\nline.png", "$HOME_[red].png", "\x1b[31mred.png", "猫.png", os.fsdecode(b"\xff\xfe.png"))
    for name in odd:
        Image.new("RGB", (8, 8)).save(root / "circle" / name, "PNG")
    files = dict(list_folder(root).files["train"])
    assert {str(root / "circle" / name) for name in odd} <= set(files)
    assert all(decoding.read_rgb(path).mode == "RGB" for path in files)


def test_the_work_of_listing_grows_with_the_number_of_images_alone(tmp_path, monkeypatch):
    """Twice the images ask the disk for no more than twice as much; no file with a common suffix is opened."""
    calls = []
    scandir, stat = os.scandir, os.stat
    monkeypatch.setattr(os, "scandir", lambda path: calls.append(path) or scandir(path))
    monkeypatch.setattr(os, "stat", lambda path, **kwargs: calls.append(path) or stat(path, **kwargs))
    monkeypatch.setattr("PIL.Image.open", lambda *args, **kwargs: pytest.fail("an image was opened"))
    counts = []
    for classes in (20, 40):
        root = tmp_path / str(classes)
        for number in range(classes):
            (root / str(number)).mkdir(parents=True)
            for image in range(5):
                (root / str(number) / f"{image}.png").touch()
        calls.clear()
        list_folder(root)
        counts.append(len(calls))
    assert counts[1] <= 2 * counts[0]


def test_splits_without_class_folders_are_no_classes_and_a_train_among_vehicles_is_one(tmp_path):
    for name in ("flat/train", "flat/test", "vehicles/bus", "vehicles/train"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"flat holds test and train, in which there are no class folders"):
        list_folder(tmp_path / "flat")
    assert {label for _, label in list_folder(tmp_path / "vehicles").files["train"]} == {"bus", "train"}

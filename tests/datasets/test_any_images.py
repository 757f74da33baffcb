"""Images without labels: files, folders, CSVs, PIL images and arrays, as a viewer shows them."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from wisepatch.datasets.any_images import AnyImages, list_images
from wisepatch.datasets.decoding import ORIENTATION
from wisepatch.errors import DataError, UsageError


def gradient(width=40, height=24):
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


def test_a_path_an_image_and_an_array_are_the_same_picture(tmp_path):
    image = gradient()
    image.save(tmp_path / "a.png")
    pixels = np.asarray(image)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    sources = [str(tmp_path / "a.png"), tmp_path / "a.png", image, pixels, pixels / 255.0, pixels[..., 0], tensor]
    opened = AnyImages(sources)
    for index in range(len(opened)):
        picture, unreadable = opened[index]
        assert not unreadable
        assert np.array_equal(np.asarray(picture), pixels), index
    assert opened.names()[1:3] == [str(tmp_path / "a.png"), "image 2"]


def test_images_are_turned_and_transparency_is_white_wherever_they_come_from(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    gradient().save(tmp_path / "turned.jpg", exif=exif)
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    with Image.open(tmp_path / "turned.jpg") as turned:
        images = AnyImages([tmp_path / "turned.jpg", turned, clear, np.asarray(clear)])
        assert [images.open(index).size for index in range(2)] == [(24, 40), (24, 40)]
    assert {images.open(2).getpixel((0, 0)), images.open(3).getpixel((0, 0))} == {(255, 255, 255)}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros(3), "an array of shape (3,) is no image"),
        (np.zeros((4, 4, 2), np.uint8), "an array of shape (4, 4, 2) is no image"),
        (np.zeros((0, 4), np.uint8), "an array of shape (0, 4) is no image"),
        (np.full((4, 4), 255.0), "floating-point values of an image lie in [0, 1]"),
        (np.full((4, 4), np.nan), "floating-point values of an image lie in [0, 1]"),
        (np.zeros((4, 4), np.int64), "an array of int64 is no image"),
        ("nowhere.png", "it is missing"),
        (None, "an array of shape () is no image"),
    ],
)
def test_what_cannot_be_read_is_blank_and_says_why(source, reason):
    images = AnyImages([source], lambda image: image.size)
    assert images[0] == ((64, 64), 1)
    assert reason in images.problem(0)


def test_folders_and_csvs_are_listed_and_what_is_no_image_is_counted(tmp_path):
    for name in ("b/10.png", "b/9.png", "a.png", "b/c/d.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        gradient().save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    listing = list_images([tmp_path / "photos", str(tmp_path / "photos" / "a.png")])
    names = [path.removeprefix(f"{tmp_path}/photos/") for path in listing.paths]
    assert sorted(names) == ["a.png", "a.png", "b/10.png", "b/9.png", "b/c/d.jpg"]
    assert listing.note() == "1 file is left out (no image: notes.txt)"
    (tmp_path / "list.csv").write_text("picture\nphotos/a.png\nphotos/gone.png\nphotos/a.png\n")
    with pytest.raises(DataError, match="has no column path; its first line has: picture") as caught:
        list_images([tmp_path / "list.csv"])
    assert caught.value.hint == "its first line must begin path, or name columns with --path-column"
    listed = list_images([tmp_path / "list.csv"], {"path": "picture"}).paths
    assert [path.removeprefix(f"{tmp_path}/") for path in listed] == ["photos/a.png", "photos/gone.png"]


def test_what_names_no_image_is_an_error_before_any_work(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    for word, problem, hint in (
        (tmp_path / "gone.jpg", "there is no image, folder or CSV", "check the path"),
        (tmp_path / "empty", "holds no images", "1 file is left out (no image: notes.txt)"),
        ("https://example.org/a.png", "is an address", "fetch the image"),
    ):
        with pytest.raises(DataError, match=problem) as caught:
            list_images([word])
        assert hint in caught.value.hint
    with pytest.raises(UsageError, match="no images are named"):
        list_images([])


def test_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg holds no images"):
        list_images([tmp_path / "a.jpg"])

"""A folder that holds at once whatever people's folders hold."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.samples import draw_folder
from wisepatch.tasks import find_task

FORMS = {
    "a.avif": "AVIF", "b.jfif": "JPEG", "c.jpe": "JPEG", "d.jp2": "JPEG2000", "e.mpo": "JPEG", "f.tga": "TGA", "G.JPG": "JPEG",
    "no_suffix": "PNG", "h.webp": "WEBP", "i.gif": "GIF", "j.tiff": "TIFF", "k.bmp": "BMP", "猫.png": "PNG", "$x [red].png": "PNG",
}  # fmt: skip


@pytest.fixture
def museum(tmp_path):
    root = tmp_path / "museum" / "wrapper"
    for split, size in (("training", 12), ("valid", 4), ("testing", 4)):
        draw_folder(root / split, per_class=size, classes=("circle", "star"))
    hall = root / "training" / "circle"
    picture = Image.open(hall / "0.png").convert("RGB")
    for name, form in FORMS.items():
        picture.save(hall / name, form)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32), "red").save(hall / "phone.jpg", exif=exif)
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(hall / "clear.png")
    picture.convert("CMYK").save(hall / "print.jpg")
    picture.resize((32, 16)).save(hall / "damaged exif.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    for place in (tmp_path / "museum", root, root / "training", hall):
        for name in (".DS_Store", "Thumbs.db", "._0.png", "__MACOSX/0.png", ".ipynb_checkpoints/0.png"):
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(b"x")
    (hall / "round").symlink_to(hall)
    (hall / "notes.txt").write_text("who took which")
    (hall / "raw.CR2").write_bytes(b"II*\0")
    (root / "loose.png").write_bytes(b"x")
    draw_folder(root, per_class=2, classes=("square",))
    (root / "dev_notes").mkdir()
    shutil.copy(hall / "1.png", root / "testing" / "circle" / "again.png")
    return tmp_path / "museum"


COUNTS = {"train": 24 + len(FORMS) + 4, "val": 8, "test": 9}


@pytest.mark.filterwarnings("ignore")  # Pillow's, about the damaged EXIF block
def test_everything_in_the_museum_is_read_or_named(cli, museum, caplog):
    result = cli("datasets", "check", museum, "--deep")
    assert result.exit_code == 0, result.output
    said = " ".join(record.getMessage() for record in caplog.records)
    assert f"the classes are taken from {museum}/wrapper" in said
    assert "left out" not in said  # they are named below
    for line in (
        "left out of museum, 1: no image:\n  wrapper/training/circle/notes.txt",
        "left out of museum, 1: a camera's raw format:\n  wrapper/training/circle/raw.CR2",
        "left out of museum, 1: a link to a folder that is listed already:\n  wrapper/training/circle/round",
        "left out of museum, 1: beside the splits:\n  wrapper/loose.png",
        "left out of museum, 2: in a folder beside the splits, and none of them:\n  wrapper/square/0.png",
        "note: museum (train): EXIF turns 1 of 42 images",
        "note: museum: 8 images with the same bytes in more than one split",
    ):
        assert line in result.stderr
    records = [json.loads(line) for line in cli("datasets", "check", museum, "--json").stdout.splitlines()]
    assert {each["split"]: each["images"] for each in records if each["type"] == "check"} == COUNTS
    left_out = {each["reason"]: each["files"] for each in records if each["type"] == "left_out"}
    assert left_out["beside the splits"] == ["wrapper/loose.png"]
    assert sum(map(len, left_out.values())) == 6
    same = [each for each in records if each["type"] == "duplicate"]
    assert len(same) == 8
    assert {each["same"] for each in same} == {"bytes"}
    assert all({"split", "file", "class"} == set(image) for each in same for image in each["images"])
    assert all(each["broken"] == [] for each in records if each["type"] == "check")


@pytest.mark.filterwarnings("ignore")
def test_every_image_of_the_museum_is_ready_for_a_model(museum):
    dataset = find_task(str(museum)).dataset
    pixels = {}
    for split, size in COUNTS.items():
        opened = dataset.split(split, museum)
        assert len(opened) == size
        for index, name in enumerate(opened.image_ids()):
            image, _ = opened[index]
            assert image.mode == "RGB"
            pixels[name.removeprefix(f"{museum}/wrapper/training/circle/")] = image
    assert pixels["phone.jpg"].size == (32, 64)
    assert np.asarray(pixels["clear.png"]).min() == 255
    for name in FORMS:
        assert np.abs(np.asarray(pixels[name]).astype(int) - np.asarray(pixels["0.png"])).mean() < 12, name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_museum_is_patched(cli, museum):
    result = cli(
        "patch", "--model", "demo", "--task", museum, "--steps", "2", "--warmup", "0", "--batch-size", "8", "--alpha", "0,1",
        "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["split"]: row["n"] for row in rows if row.get("metric") == "top1"} == {"val": 8, "test": 9}
    assert "note: museum: 8 images with the same bytes in more than one split" in result.stderr

"""Images that come twice."""

import shutil

import pytest
from PIL import Image

from tests.samples import draw_folder
from wisepatch.datasets import duplicates
from wisepatch.datasets.folder_or_csv import folder_dataset
from wisepatch.tasks import find_task


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val", "test"):
        draw_folder(tmp_path / "things" / split, per_class=2, classes=("ring", "star"))
    for number, path in enumerate(sorted((tmp_path / "things").rglob("*.png"))):  # the same for all splits before
        Image.new("RGB", (16, 16), (number, 0, 0)).save(path)
    return tmp_path / "things"


def test_the_same_file_in_two_splits_or_under_two_labels_is_found_and_counted(root):
    assert duplicates.same_files(folder_dataset(root), root) == []
    shutil.copy(root / "train" / "ring" / "0.png", root / "test" / "ring" / "9.png")
    shutil.copy(root / "train" / "ring" / "1.png", root / "train" / "star" / "9.png")
    shutil.copy(root / "val" / "star" / "1.png", root / "val" / "star" / "9.png")  # of one split and one label: no harm
    dataset = folder_dataset(root)
    groups = duplicates.same_files(dataset, root)
    names = [[place.name.removeprefix(f"{root}/") for place in group] for group in groups]
    assert sorted(names) == [["train/ring/0.png", "test/ring/9.png"], ["train/ring/1.png", "train/star/9.png"]]
    assert duplicates.told(dataset, groups) == [
        "things: 1 image with the same bytes in more than one split, so that what is measured was trained on",
        "things: 1 image with the same bytes under more than one label",
    ]
    assert f"{root}/test/ring/9.png (test, ring)" in duplicates.described(dataset, groups[0] + groups[1])


def test_tasks_share_files_that_are_the_same_linked_or_copied(root, tmp_path):
    files = [str(path) for path in sorted(root.rglob("*.png"))]
    (tmp_path / "linked").symlink_to(root)
    shutil.copytree(root, tmp_path / "copied")
    draw_folder(tmp_path / "others", per_class=2, classes=("ring", "star"))
    for number, path in enumerate(sorted((tmp_path / "others").rglob("*.png"))):
        Image.new("RGB", (16, 16), (200, number, 9)).save(path)
    for folder, shared in (("linked", True), ("copied", True), ("others", False)):
        other = [str(path) for path in sorted((tmp_path / folder).glob("**/*.png"))] or [
            file.replace(str(root), str(tmp_path / folder)) for file in files
        ]
        assert duplicates.share_files(files, other) is shared, folder
        assert duplicates.share_files(files[:1], other) is shared, folder
    assert not duplicates.share_files(["0", "1"], ["0", "1"])  # numbers of published images are no files


def test_files_that_differ_in_the_middle_alone_are_not_the_same(root):
    for split, middle in (("train", b"a"), ("test", b"b")):
        (root / split / "ring" / "long.png").write_bytes(b"0" * 9000 + middle + b"0" * 9000)
    assert duplicates.same_files(folder_dataset(root), root) == []


def test_files_of_different_sizes_are_not_opened(root, monkeypatch):
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        path.write_bytes(b"0" * number)
    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: pytest.fail("a file was opened"))
    assert duplicates.same_files(folder_dataset(root), root) == []


def test_check_names_files_that_come_twice_and_with_deep_pixels_too(cli, root):
    shutil.copy(root / "train" / "ring" / "0.png", root / "test" / "ring" / "9.png")
    Image.open(root / "train" / "star" / "0.png").save(root / "train" / "ring" / "same.bmp")
    plain = cli("datasets", "check", root)
    assert plain.exit_code == 0
    assert "note: things: 1 image with the same bytes in more than one split" in plain.stderr
    assert f"the same: {root}/train/ring/0.png (train, ring), {root}/test/ring/9.png (test, ring)" in plain.stderr
    assert "pixels" not in plain.stderr
    deep = cli("datasets", "check", root, "--deep")
    assert "note: things: 1 image with the same pixels under more than one label" in deep.stderr
    assert f"{root}/train/ring/same.bmp (train, ring), {root}/train/star/0.png (train, star)" in deep.stderr


@pytest.mark.slow
def test_patch_warns_with_the_number(cli, tmp_path):
    root = draw_folder(tmp_path / "things", per_class=8, classes=("heart", "star", "ring"))
    shutil.copy(root / "heart" / "0.png", root / "star" / "0.png")
    result = cli(
        "patch",
        "--model",
        "demo",
        "--task",
        root,
        "--steps",
        "1",
        "--warmup",
        "0",
        "--batch-size",
        "4",
        "--alpha",
        "0,1",
    )
    assert result.exit_code == 0
    assert "note: things: 1 image with the same bytes under more than one label" in result.stderr


@pytest.mark.parametrize("word", ["typo:{}", "corrupt:{}:fog:3"])
def test_the_same_files_are_found_below_text_and_corruptions(root, tmp_path, word):
    shutil.copy(root / "train" / "ring" / "0.png", root / "test" / "ring" / "9.png")
    (group,) = duplicates.same_files(find_task(word.format(root)).dataset, tmp_path)
    assert [place.name.removeprefix(f"{root}/") for place in group] == ["train/ring/0.png", "test/ring/9.png"]


def test_a_split_that_cannot_be_opened_hides_none_of_the_others(cli, root):
    checked = cli("datasets", "check", f"corrupt:{root}")  # of fifteen kinds, and four images
    assert checked.exit_code == 1
    shutil.copytree(root / "test" / "ring", root / "test" / "ring" / "more")
    for number in range(16):
        Image.new("RGB", (16, 16), (0, number, 0)).save(root / "test" / "star" / f"{number}.png")
    checked = cli("datasets", "check", f"corrupt:{root}")
    assert "needs 15 images at least, and its 'train' split has 4" in checked.stderr
    assert "│ corrupt:things │ test  │" in checked.stdout

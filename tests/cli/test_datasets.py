"""``wisepatch datasets``: the listing, what is known of one, and a look at its data."""

import json

import pytest
from PIL import Image

from tests.samples import broken_png, draw_folder, fails, write_mnist


def test_datasets_lists_and_says_whether_the_data_is_there(cli, tmp_path):
    write_mnist(tmp_path / "data")
    records = {r["name"]: r for r in map(json.loads, cli("datasets", "--data", "data", "--json").stdout.splitlines())}
    assert {"Shapes", "Digits", "MNIST", "CIFAR100", "STL10", "SVHN", "FashionMNIST", "GTSRB"} <= set(records)
    assert (records["Shapes"]["data"], records["MNIST"]["data"], records["GTSRB"]["data"]) == ("built in", "yes", "no")
    assert (len(records["GTSRB"]["classes"]), records["GTSRB"]["splits"]) == (43, ["train", "val", "test"])


def test_datasets_show_tells_what_is_known(cli):
    text = cli("datasets", "show", "gtsrb").stdout
    for part in (
        "GTSRB",
        "traffic sign",
        "32.6 % ViT-B-32 openai",
        "gtsrb/{GTSRB/Training",
        "https://",
        "43 classes",
        "23976 train",
    ):
        assert part in text
    (record,) = map(json.loads, cli("datasets", "show", "GTSRB", "--json").stdout.splitlines())
    assert record["zeroshot"]["ViT-L-14 openai"] == 0.5055
    assert record["downloads"]


def test_datasets_check_counts_images_and_classes(cli, shapes):
    checked = [json.loads(line) for line in cli("datasets", "check", shapes, "--json").stdout.splitlines()]
    assert [(c["split"], c["images"], c["expected"]) for c in checked] == [
        ("train", 12, None), ("val", 3, None), ("test", 3, None),
    ]  # fmt: skip
    assert checked[0]["per_class"] == {
        f"{i} {name}": 4 for i, name in enumerate(sorted(p.name for p in shapes.iterdir()))
    }
    assert checked[0]["sample"].startswith("64 x 64, ")


def test_datasets_check_goes_on_after_a_task_that_is_not_there(cli, data):
    result = cli("datasets", "check", "ImageNetA", "Digits@test", "MNIST", "--data", data, "--json")
    assert result.exit_code == 1
    record, first, second = map(json.loads, result.stdout.splitlines())
    assert (record["task"], record["images"]) == ("Digits", 500)
    assert [each["error"].partition(" ")[0] for each in (first, second)] == ["ImageNetA", "MNIST"]
    assert "error: ImageNetA is not below" in result.stderr
    assert "error: MNIST is not below" in result.stderr
    assert "`wisepatch datasets download MNIST` fetches it" in result.stderr  # a look fetches nothing
    assert not list(data.iterdir())


def test_datasets_check_names_classes_without_images(cli, data):
    draw_folder(data / "imagenet-a", classes=("circle",))
    (data / "imagenet-a" / "circle").rename(data / "imagenet-a" / "n01498041")
    result = cli("datasets", "check", "imagenet-a", "--data", data)
    assert result.exit_code == 0
    assert "note: ImageNetA (test) has 6 images, its publisher 7500" in result.stderr
    assert "note: ImageNetA (test) has no images of " in result.stderr
    assert "stingray" not in result.stderr
    assert "and 194 more" in result.stderr


def test_datasets_check_names_sizes_that_differ_from_the_published_ones(cli, tmp_path):
    write_mnist(tmp_path / "data", train=40, test=20)
    result = cli("datasets", "check", "MNIST", "--data", "data")
    assert result.exit_code == 0
    assert "note: MNIST (test) has 20 images, its publisher 10000" in result.stderr


@pytest.mark.parametrize("deep", [(), ("--deep",)])
def test_datasets_check_names_every_broken_file(cli, shapes, deep):
    victims = sorted(shapes.rglob("*.png"))
    for path in (victims[0], victims[1], victims[-2]):
        broken_png(path)
    result = cli("datasets", "check", f"corrupt:{shapes}:fog:3", *deep)
    assert result.exit_code == 1
    assert "error: 3 images cannot be read" in result.stderr
    for path in (victims[0], victims[1], victims[-2]):
        assert f"image {path} cannot be read: " in result.stderr
    assert "images per class" in result.stdout


def test_datasets_check_deep_counts_what_plain_checking_cannot(cli, monkeypatch):
    monkeypatch.setattr("wisepatch.datasets.inspection.labels_of", lambda samples: None)
    assert "? (--deep counts)" in cli("datasets", "check", "Digits@val").stdout
    (record,) = map(json.loads, cli("datasets", "check", "Digits@val", "--deep", "--json").stdout.splitlines())
    assert sum(record["per_class"].values()) == record["images"] == record["expected"] == 129


def test_datasets_download_asks_torchvision_or_says_where_to_get_it(cli, shapes, monkeypatch, tmp_path):
    import torchvision.datasets.utils

    asked = []

    def refuse(url, *args, **kwargs):
        asked.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.utils, "_get_redirect_url", refuse)
    result = cli("datasets", "download", "GTSRB", "--data", "data")
    assert result.exit_code == 1
    assert "GTSRB is not below data: its files are missing and could not be downloaded: " in result.stderr
    assert asked
    assert "GTSRB" in asked[0]
    refused = cli("datasets", "download", "Cars,Shapes", shapes)
    assert refused.exit_code == 2
    assert "error: Cars cannot be downloaded by wisepatch" in refused.stderr
    assert "stanford_cars" in refused.stderr
    assert refused.stdout == "Shapes is there without a download\nshapes is there without a download\n"
    nowhere = cli("datasets", "download", "GTSRB", "--data", shapes / "circle" / "0.png")
    assert nowhere.exit_code == 2
    assert "cannot be made: " in nowhere.stderr
    write_mnist(tmp_path / "data")
    assert cli("datasets", "download", "MNIST", "--data", "data").stdout == "MNIST is below data\n"


def test_datasets_check_shows_the_pairing_of_folder_and_class_name(cli, shapes, tmp_path):
    (shapes / "circle").rename(shapes / "big_circle")
    result = cli("datasets", "check", shapes)
    line = next(line for line in result.stdout.splitlines() if "big_circle" in line)
    assert "big circle" in line
    (tmp_path / "names.txt").write_text("\ufeffcurve\n\nbox\ntent\n", encoding="utf-8")
    result = cli("datasets", "check", shapes, "--classnames", tmp_path / "names.txt")
    for folder, name in (("big_circle", "curve"), ("square", "box"), ("triangle", "tent")):
        assert any(folder in line and name in line for line in result.stdout.splitlines())


def test_datasets_check_names_all_that_is_left_out(cli, shapes, caplog):
    for number in range(7):
        (shapes / "circle" / f"{number}.txt").write_text("notes")
    result = cli("datasets", "check", shapes)
    assert result.exit_code == 0
    assert "left out of shapes, 7: no image:" in result.stderr
    assert "names them" not in caplog.text
    cli("datasets", "show", shapes)
    assert "names them" in caplog.text
    assert all(f"  circle/{number}.txt\n" in result.stderr for number in range(7))


def test_datasets_check_reports_tasks_beside_one_that_is_none(cli, shapes):
    (shapes.parent / "empty").mkdir()
    result = cli("datasets", "check", "Digitz", shapes.parent / "empty", shapes)
    assert result.exit_code == 1
    assert "│ shapes │ train │" in result.stdout
    assert "error: unknown task 'Digitz'; did you mean Digits?" in result.stderr
    assert "empty holds no class folders" in result.stderr
    fails(cli("datasets", "check", "Digits", shapes, "--classnames", "a,b,c"), 2, "class names are given for several")


def test_datasets_check_counts_images_that_are_turned_by_exif(cli, shapes):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("circle", "square"):
        Image.new("RGB", (32, 16)).save(shapes / name / "0.png", exif=exif)
    records = [json.loads(line) for line in cli("datasets", "check", shapes, "--json").stdout.splitlines()]
    assert sum(record["turned"] for record in records if record["type"] == "check") == 2
    assert "note: shapes (train): EXIF turns " in cli("datasets", "check", shapes).stderr


def test_a_set_that_is_there_in_part_is_reported_split_by_split_and_measured(cli, data):
    from tests.datasets.published.layouts import FOLDERS, write_images

    write_images(data / "imagenet/val", [f"{wnid}/ILSVRC2012_val_{n:08}.JPEG" for n, wnid in enumerate(FOLDERS[:3])])
    result = cli("datasets", "check", "ImageNet", "--data", data)
    assert result.exit_code == 0
    assert "note: ImageNet (train, val) is missing: there is no folder of training images" in result.stderr
    rows = [line.replace("│", " ").split()[1:4] for line in result.stdout.splitlines() if "ImageNet" in line]
    assert rows == [["train", "none", "1276167"], ["val", "none", "5000"], ["test", "3", "50000"]]
    records = [
        json.loads(line) for line in cli("datasets", "check", "ImageNet", "--data", data, "--json").stdout.splitlines()
    ]
    assert [(each["type"], each["split"]) for each in records] == [
        ("check", "test"),
        ("missing", "train"),
        ("missing", "val"),
    ]
    assert "image-net.org" in records[1]["hint"]
    listed = {
        r["name"]: r["data"] for r in map(json.loads, cli("datasets", "--data", data, "--json").stdout.splitlines())
    }
    assert (listed["ImageNet"], listed["ImageNetR"], listed["Food101"]) == ("in part", "no", "no")
    write_mnist(data, test=20)
    for path in (data / "MNIST/raw").glob("train*"):
        path.unlink()
    assert cli("zeroshot", "--model", "demo", "--task", "MNIST", "--data", data).exit_code == 0
    (row,) = map(json.loads, cli("eval", "zeroshot", "--task", "MNIST", "--data", data, "--json").stdout.splitlines())
    assert (row["task"], row["split"], row["n"]) == ("MNIST", "test", 20)


def test_a_set_that_is_packed_is_listed_as_such(cli, data):
    (data / "dtd-r1.0.1.tar.gz").touch()
    listed = {
        r["name"]: r["data"] for r in map(json.loads, cli("datasets", "--data", data, "--json").stdout.splitlines())
    }
    assert listed["DTD"] == "packed"


def test_datasets_check_says_which_split_has_no_images_and_shows_the_others(cli, tmp_path):
    draw_folder(tmp_path / "few", per_class=1, classes=("circle", "star"))
    result = cli("datasets", "check", tmp_path / "few")
    assert result.exit_code == 0
    assert "too few images to hold out a val split: of 2, none falls into it by its name" in result.stderr
    assert "train" in result.stdout


def test_names_that_do_not_fit_say_where_they_differ_first(cli, shapes, tmp_path):
    (tmp_path / "names.txt").write_text("circle\nstar\n")
    result = cli("datasets", "check", shapes, "--classnames", tmp_path / "names.txt")
    assert result.exit_code == 2
    assert (
        "2 class names for 3 classes of 'shapes'; the first that differ are number 2: star is given for square"
        in result.stderr
    )
    (tmp_path / "names.txt").write_text("circle\nstar\nCircle\n")
    result = cli("datasets", "check", shapes, "--classnames", tmp_path / "names.txt")
    assert result.exit_code == 2
    assert "two classes of 'shapes' are called 'Circle': number 1 and number 3" in result.stderr

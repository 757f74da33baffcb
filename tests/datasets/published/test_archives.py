"""Archives that lie in the data folder as their publishers ship them."""

import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest

from tests.datasets.published.layouts import FOLDERS, encoded, task
from tests.datasets.published.test_cars_food101 import write_cars, write_food
from tests.datasets.published.test_dtd import write_dtd
from tests.datasets.published.test_eurosat_resisc45 import write_resisc
from tests.datasets.published.test_gtsrb import write_gtsrb
from tests.datasets.published.test_kitti import write_kitti
from tests.datasets.published.test_mtsd import write_mtsd
from tests.datasets.published.test_sun397 import write_sun
from tests.samples import write_mnist
from wisepatch.datasets.published.archives import _unpack
from wisepatch.datasets.published.eurosat_resisc45 import EUROSAT
from wisepatch.datasets.published.readers import asked
from wisepatch.errors import DataError


def pack(folder, archive, *parts):
    """Move parts of a folder into an archive of the kind that its name says."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    files = sorted(path for part in parts for path in [folder / part, *(folder / part).rglob("*")] if path.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("__MACOSX/._x.jpg", b"litter")
            for path in files:
                packed.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix.endswith("gz") else "w") as packed:
            for path in files:
                packed.add(path, path.relative_to(folder))
    for path in files:
        path.unlink()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def write_shift(root, folder):
    for wnid in ("n01498041", "n01531178"):
        (root / folder / wnid).mkdir(parents=True)
        (root / folder / wnid / "0.jpg").write_bytes(encoded())


def write_clevr(root):
    for split in ("train", "val"):
        scenes = [{"image_filename": f"{split}_{n}.png", "objects": [{}] * n} for n in (3, 4, 5)]
        (root / "clevr/CLEVR_v1.0/images" / split).mkdir(parents=True)
        (root / "clevr/CLEVR_v1.0/scenes").mkdir(exist_ok=True)
        (root / f"clevr/CLEVR_v1.0/scenes/CLEVR_{split}_scenes.json").write_text(json.dumps({"scenes": scenes}))
        for scene in scenes:
            (root / "clevr/CLEVR_v1.0/images" / split / scene["image_filename"]).write_bytes(encoded("PNG"))


def write_eurosat(root):
    for name in EUROSAT:
        (root / "eurosat/EuroSAT_RGB" / name).mkdir(parents=True)
        for number in range(5):
            (root / "eurosat/EuroSAT_RGB" / name / f"{name}_{number}.jpg").write_bytes(encoded())


def write_cifar(root):
    folder = root / "CIFAR-10.1-master/datasets"
    folder.mkdir(parents=True)
    np.save(folder / "cifar10.1_v6_data.npy", np.zeros((2, 32, 32, 3), np.uint8))
    np.save(folder / "cifar10.1_v6_labels.npy", np.array([7, 3], np.int32))


SETS = {  # what is written, and what is packed: archive, folder, parts of it
    "DTD": (lambda root: write_dtd(root / "dtd/dtd"), [("dtd-r1.0.1.tar.gz", "dtd", "dtd")]),
    "Cars": (
        write_cars,
        [
            ("stanford_cars/car_devkit.tgz", "stanford_cars", "devkit"),
            ("stanford_cars/cars_train.tgz", "stanford_cars", "cars_train"),
            ("stanford_cars/cars_test.tar", "stanford_cars", "cars_test"),
        ],
    ),
    "Food101": (write_food, [("food-101/food-101.tar.gz", "", "food-101")]),
    "SUN397": (
        lambda root: write_sun(root, "SUN397"),
        [("Partitions.zip", "SUN397", "Training_01.txt", "Testing_01.txt"), ("SUN397.tar.gz", "", "SUN397")],
    ),
    "GTSRB": (
        write_gtsrb,
        [
            ("gtsrb/GTSRB-Training_fixed.zip", "gtsrb", "GTSRB/Training"),
            ("GTSRB/GTSRB_Final_Test_Images.zip", "gtsrb", "GTSRB/Final_Test"),
            ("GTSRB_Final_Test_GT.zip", "gtsrb", "GT-final_test.csv"),
        ],
    ),
    "RESISC45": (write_resisc, [("resisc45/NWPU-RESISC45.zip", "resisc45", "NWPU-RESISC45")]),
    "EuroSAT": (write_eurosat, [("EuroSAT_RGB.zip", "eurosat", "EuroSAT_RGB")]),
    "CLEVR": (write_clevr, [("clevr/CLEVR_v1.0.zip", "clevr", "CLEVR_v1.0")]),
    "CIFAR10.1": (write_cifar, [("CIFAR-10.1-master.zip", "", "CIFAR-10.1-master")]),
    "KITTI": (
        lambda root: write_kitti(root, "kitti/raw"),
        [
            ("kitti/raw/data_object_image_2.zip", "kitti/raw", "training/image_2"),
            ("data_object_label_2.zip", "kitti/raw", "training/label_2"),
        ],
    ),
    "MTSD": (
        write_mtsd,
        [
            ("mtsd/mtsd_v2_fully_annotated_images.train.0.zip", "mtsd", "images/0aZ_-.jpg", "images/bW8tu.jpg"),
            ("mtsd/mtsd_v2_fully_annotated_images.train.1.zip", "mtsd", "images/zzz.jpg"),
            ("mtsd/mtsd_v2_fully_annotated_images.val.zip", "mtsd", "images"),
            ("mtsd/mtsd_v2_fully_annotated_annotation.zip", "mtsd", "mtsd_v2_fully_annotated"),
        ],
    ),
    "ImageNetA": (lambda root: write_shift(root, "imagenet-a"), [("imagenet-a.tar", "", "imagenet-a")]),
}


@pytest.mark.parametrize("name", SETS)
def test_archives_are_unpacked_where_they_lie_without_a_network(data, offline, name):
    write, packed = SETS[name]
    write(data)
    dataset = task(name)
    before = {split: [dataset.split(split, data)[0][1]] for split in dataset.available_splits}
    for archive, folder, *parts in packed:
        pack(data / folder, data / archive, *parts)
    assert dataset.find(data) is None
    assert dataset.open.is_packed(data)
    for _ in range(2):
        with asked(wanted=False):
            after = {split: [dataset.split(split, data)[0][1]] for split in dataset.available_splits}
        assert after == before
    assert not offline
    assert dataset.find(data)
    assert not list(data.rglob(".*"))


def test_cifar_and_stl10_are_unpacked_before_anything_is_fetched(data, offline):
    for name, file in (("CIFAR10", "cifar-10-python.tar.gz"), ("STL10", "stl10_binary.tar.gz")):
        folder = data / task(name).layouts[0].partition("/")[0]
        folder.mkdir()
        (folder / ("batches.meta" if name == "CIFAR10" else "test_X.bin")).write_bytes(b"x")
        pack(data, data / name / file, folder.name)
        with asked(wanted=False), pytest.raises(DataError, match=f"{name} is not below"):
            task(name).split("test", data)
        assert folder.is_dir()
    assert not offline


@pytest.mark.parametrize("folder", ["MNIST/raw", "mnist"])
def test_idx_files_are_read_packed_by_whomever(data, folder):
    for path in sorted((write_mnist(data) / "MNIST/raw").iterdir()):
        content = path.read_bytes()
        path.unlink()
        (data / folder).mkdir(parents=True, exist_ok=True)
        (data / folder / f"{path.name}.gz").write_bytes(gzip.compress(content, 1))
    dataset = task("MNIST")
    assert [dataset.split("test", data)[i][1] for i in range(3)] == [0, 1, 2]
    assert dataset.find(data) == next(
        layout for layout in dataset.layouts if layout.startswith(folder) and layout.endswith(".gz")
    )
    labels = data / folder / "t10k-labels-idx1-ubyte.gz"
    whole = labels.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for broken in (whole[:-9], bytes(flipped), b"<html>"):
        labels.write_bytes(broken)
        with pytest.raises(DataError, match=r"MNIST: .*labels-idx1-ubyte\.gz is not what was published"):
            dataset.split("test", data)


def tar_of(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return content.getvalue()


def test_imagenet_is_unpacked_from_its_tar_of_tars_and_its_flat_test_images_are_labelled_by_the_devkit(data):
    import scipy.io

    (data / "imagenet").mkdir()
    wnids = FOLDERS[:2]
    train = {f"{wnid}.tar": tar_of({f"{wnid}_{n}.JPEG": encoded() for n in range(10)}) for wnid in wnids}
    (data / "imagenet/ILSVRC2012_img_train.tar").write_bytes(tar_of(train))
    test = {f"ILSVRC2012_val_{n:08}.JPEG": encoded() for n in (1, 2, 3)}
    (data / "ILSVRC2012_img_val.tar").write_bytes(tar_of(test))
    dataset = task("ImageNet")
    with pytest.raises(
        DataError, match=r"imagenet/val are not in class folders, and their labels are not there"
    ) as caught:
        dataset.split("test", data)
    assert "ILSVRC2012_devkit_t12.tar.gz" in caught.value.hint
    assert not (data / "imagenet/train").exists()  # nobody asked for it
    meta = np.array([(490, wnids[1]), (7, wnids[0])], dtype=[("ILSVRC2012_ID", "i4"), ("WNID", "U9")])
    matrix = io.BytesIO()
    scipy.io.savemat(matrix, {"synsets": meta})
    kit = {"data/meta.mat": matrix.getvalue(), "data/ILSVRC2012_validation_ground_truth.txt": b"490\n7\n490\n"}
    kit = tar_of({f"ILSVRC2012_devkit_t12/{name}": body for name, body in kit.items()})
    assert len(dataset.split("train", data)) == 18  # all layouts are found now
    (data / "imagenet/ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(kit))
    split = dataset.split("test", data)
    assert [(split.image_ids()[i][-6:], split[i][1]) for i in range(3)] == [("2.JPEG", 0), ("1.JPEG", 1), ("3.JPEG", 1)]
    assert len(dataset.split("val", data)) == 2
    (data / "imagenet/ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt").write_text("490\n7\n")
    with pytest.raises(DataError, match=r"ground_truth\.txt does not give the labels of the images in .*val_00000003"):
        dataset.split("test", data)


def test_flat_test_images_of_kaggles_imagenet_are_labelled_by_its_table(data):
    folder = data / "ILSVRC/Data/CLS-LOC/val"
    folder.mkdir(parents=True)
    (folder / "ILSVRC2012_val_00000001.JPEG").write_bytes(encoded())
    (data / "LOC_val_solution.csv").write_text(
        f"ImageId,PredictionString\nILSVRC2012_val_00000001,{FOLDERS[7]} 85 1 499 272 \n"
    )
    assert task("ImageNet").split("test", data)[0][1] == 7


def test_archive_that_is_broken_locked_or_cannot_be_unpacked_is_one_line_and_leaves_nothing(data, monkeypatch):
    write_shift(data, "imagenet-a")
    pack(data, data / "imagenet-a.tar", "imagenet-a")
    whole = (data / "imagenet-a.tar").read_bytes()
    (data / "imagenet-a.tar").write_bytes(whole[:900])
    with pytest.raises(DataError, match=r"^ImageNetA: the archive .*imagenet-a\.tar is not whole") as caught:
        task("ImageNetA").split("test", data)
    assert caught.value.hint.startswith("fetch it again from https://")
    assert [path.name for path in data.iterdir()] == ["imagenet-a.tar"]
    (data / "mtsd_fully_annotated_images.val.zip").write_bytes(b"PK half")
    assert task("MTSD").lacking(data) == "packed"
    with pytest.raises(DataError, match=r"^MTSD: the archive .*images\.val\.zip is not whole"):
        task("MTSD").split("test", data)
    locked = tar_of({})
    with zipfile.ZipFile(data / "objectnet-1.0.zip", "w") as packed:
        packed.writestr("objectnet-1.0/images/x.png", locked)
    content = bytearray((data / "objectnet-1.0.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (data / "objectnet-1.0.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"objectnet-1\.0\.zip is locked by a password"):
        task("ObjectNet").split("test", data)

    def refuse(*args):
        raise OSError(30, "Read-only file system")

    (data / "imagenet-a.tar").write_bytes(whole)
    monkeypatch.setattr("wisepatch.datasets.published.archives._unpack", refuse)
    with pytest.raises(DataError, match=r"imagenet-a\.tar cannot be unpacked in .*: Read-only file system") as caught:
        task("ImageNetA").split("test", data)
    assert "--data" in caught.value.hint


def test_archive_that_an_interrupted_download_left_is_fetched_anew_and_not_by_a_look(data, offline):
    (data / "cifar-10-python.tar.gz").write_bytes(gzip.compress(b"half")[:-3])
    with asked(wanted=False), pytest.raises(DataError, match=r"CIFAR10: the archive .* is not whole") as caught:
        task("CIFAR10").split("test", data)
    assert caught.value.hint == "`wisepatch datasets download CIFAR10` fetches it"
    assert not offline
    with pytest.raises(DataError, match=r"CIFAR10 is not below .* could not be downloaded: no route to host"):
        task("CIFAR10").split("test", data)
    assert offline


def test_archive_writes_nothing_outside_its_folder(data):
    (data / "evil.tar").write_bytes(tar_of({"../outside.txt": b"x"}))
    with pytest.raises(DataError, match="is not whole, or none of its kind"):
        _unpack(data / "evil.tar", data)
    assert not (data.parent / "outside.txt").exists()


def test_what_an_interruption_left_is_taken_for_no_data(data):
    write_shift(data, "imagenet-a")
    pack(data, data / "imagenet-a.tar", "imagenet-a")
    write_shift(data, ".imagenet-a.tar.part/imagenet-a")
    (data / ".imagenet-a.tar.part/imagenet-a/n01498041/half.jpg").write_bytes(b"half")
    assert len(task("ImageNetA").split("test", data)) == 2

"""Stanford Cars in its publisher's format."""

import numpy as np
import pytest

from tests.datasets.published.layouts import check_splits, picture, places, task
from wisepatch.datasets.names import names
from wisepatch.errors import DataError


def write_cars(data, train=((1, "a.jpg"), (196, "b.jpg"), (3, "c.jpg")), test=((7, "x.jpg"), (2, "y.jpg"))):
    """The publisher's folders: struct arrays in .mat files, classes counted from 1."""
    import scipy.io

    root = data / "stanford_cars"
    (root / "devkit").mkdir(parents=True)
    for listed, folder, path in (
        (train, "cars_train", "devkit/cars_train_annos.mat"),
        (test, "cars_test", "cars_test_annos_withlabels.mat"),
    ):
        rows = np.zeros((1, len(listed)), dtype=[(k, object) for k in ("bbox_x1", "class", "fname")])
        for row, (number, name) in zip(rows[0], listed, strict=True):
            row["bbox_x1"], row["class"], row["fname"] = 1, number, name
            picture(root / folder / name, red=number, mode="L" if name == "b.jpg" else "RGB")
        scipy.io.savemat(root / path, {"annotations": rows})
    meta = np.array([names("Cars")], dtype=object)
    scipy.io.savemat(root / "devkit" / "cars_meta.mat", {"class_names": meta})
    return root


def test_cars_are_read_from_the_devkit(data):
    write_cars(data)
    dataset = task("Cars")
    assert dataset.find(data) == dataset.layouts[0]
    splits = check_splits(dataset, data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "val": 1, "test": 2}
    assert [splits["test"][i][1] for i in range(2)] == [6, 1]
    everything = dataset.open("train", data)
    assert everything.labels == [0, 195, 2]
    assert places(splits["test"])[0].endswith("cars_test/x.jpg")


def test_cars_that_are_missing_or_broken_say_where_to_get_them(data):
    with pytest.raises(DataError, match=f"Cars is not below {data}: there is no stanford_cars/cars_test") as caught:
        task("Cars").split("test", data)
    assert "pytorch/vision/issues/7545" in caught.value.hint
    assert "stanford_cars/{cars_train" in caught.value.hint
    root = write_cars(data)
    (root / "cars_test" / "x.jpg").unlink()
    with pytest.raises(DataError, match=r"Cars: 1 of 2 images are missing, the first is .*x\.jpg"):
        task("Cars").split("test", data)
    import scipy.io

    scipy.io.savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array([["Volvo", "BMW"]], dtype=object)})
    with pytest.raises(DataError, match=r"cars_meta\.mat does not name the published classes"):
        task("Cars").split("train", data)
    for broken in (b"", b"<html>not found</html>" * 20):
        (root / "devkit" / "cars_train_annos.mat").write_bytes(broken)
        with pytest.raises(DataError, match=r"^Cars: its .* (cannot be read|not what was published)"):
            task("Cars").split("train", data)

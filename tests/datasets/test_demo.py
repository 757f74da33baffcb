"""The drawn tasks and the digits."""

import numpy as np
import pytest
from PIL import Image

from tests.datasets.published.layouts import task
from wisepatch.datasets import demo


@pytest.mark.parametrize("name", ["Shapes", "Colors", "Textures"])
def test_drawn_tasks_are_balanced_and_disjoint(name, tmp_path):
    splits = {split: task(name).split(split, tmp_path) for split in ("train", "val", "test")}
    labels = [splits["test"][i][1] for i in range(40)]
    assert labels == [i % 10 for i in range(40)]
    firsts = {split: np.asarray(samples[0][0]).tobytes() for split, samples in splits.items()}
    assert len(set(firsts.values())) == 3
    assert [len(s) for s in splits.values()] == list(demo.SIZES.values())


def test_digits_are_scikit_learns_real_ones_split_once_and_for_all(tmp_path):
    from sklearn.datasets import load_digits

    train, val, test = (task("Digits").split(s, tmp_path) for s in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (1168, 129, 500)
    counts = np.bincount([test[i][1] for i in range(500)])
    assert counts.min() >= 48
    used = [*train.samples.indices, *val.samples.indices]
    assert sorted(used) == list(range(1297))
    originals = {name: split.make.args[0] for name, split in (("train", train.samples.samples), ("test", test.samples))}
    assert sorted([*originals["train"], *originals["test"]]) == list(range(1797))
    image, label = test[0]
    original = originals["test"][0]
    assert label == load_digits().target[original]
    scan = image.convert("L").crop((10, 10, 54, 54)).resize((8, 8), Image.Resampling.BOX)
    ink = (255 - np.asarray(scan)) / 255 * 16
    assert np.abs(ink - load_digits().images[original]).mean() < 1.5
    assert image.getpixel((0, 0)) == (255, 255, 255)

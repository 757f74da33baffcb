"""Street View House Numbers in their publisher's format."""

import hashlib
import io

import numpy as np
import pytest

from tests.datasets.published.layouts import (
    task,
)


@pytest.mark.parametrize("below", ["", "svhn"])
def test_svhn_is_read_from_its_mat_files(data, monkeypatch, below):
    import scipy.io
    from torchvision import datasets

    (data / below).mkdir(exist_ok=True)
    for which, size in (("train", 20), ("test", 11)):
        labels = np.array([i % 10 or 10 for i in range(size)])[:, None]  # the publisher writes 10 for the digit 0
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, {"X": np.full((32, 32, 3, size), 7, np.uint8), "y": labels})
        url, file, _ = datasets.SVHN.split_list[which]
        (data / below / file).write_bytes(buffer.getvalue())
        digest = hashlib.md5(buffer.getvalue()).hexdigest()
        monkeypatch.setitem(datasets.SVHN.split_list, which, [url, file, digest])
    split = task("SVHN").split("test", data)
    assert [split[i][1] for i in range(11)] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert len(task("SVHN").split("val", data)) == 2

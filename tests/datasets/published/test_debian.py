"""FashionMNIST as Debian's package dataset-fashion-mnist brings it: the published files, compressed anew."""

import gzip
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.published.layouts import task
from wisepatch.datasets.published.mnist_svhn_stl10 import MNIST_FOLDERS

FOLDER = Path(MNIST_FOLDERS["FashionMNIST"][-1])
PUBLISHED = "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"  # the training labels, unpacked
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="apt-get install dataset-fashion-mnist"),
]


def test_fashion_mnist_of_debian_is_checked_patched_and_measured(cli, data):
    assert sha256(gzip.decompress((FOLDER / "train-labels-idx1-ubyte.gz").read_bytes())).hexdigest() == PUBLISHED
    test = task("FashionMNIST").split("test", data)
    assert np.bincount(test.samples.labels).tolist() == [1000] * 10
    checked = cli("datasets", "check", "FashionMNIST", "--data", data, "--json")
    records = [json.loads(line) for line in checked.stdout.splitlines()]
    assert [(each["images"], each["expected"]) for each in records] == [(55000, 55000), (5000, 5000), (10000, 10000)]
    assert cli("datasets", "download", "FashionMNIST", "--data", data).stdout == f"FashionMNIST is in {FOLDER}\n"
    words = ("--task", "FashionMNIST", "--supported", "Shapes", "--data", data, "--json")
    patched = cli("patch", "--model", "demo", *words, "--steps", 20, "--lr", "1e-3", "--alpha", "0,0.5,1")
    assert patched.exit_code == 0
    assert {"FashionMNIST", "Shapes"} <= {json.loads(line).get("task") for line in patched.stdout.splitlines()}
    measured = cli("eval", "zeroshot", "finetuned", "--task", "FashionMNIST", "--data", data, "--json")
    zeroshot, finetuned = [json.loads(line) for line in measured.stdout.splitlines()]
    assert zeroshot["n"] == finetuned["n"] == 10000
    assert finetuned["value"] > zeroshot["value"] + 0.1

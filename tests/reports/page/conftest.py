"""A store with a sweep of the embedded model, swept once for all tests of the page."""

import shutil

import pytest


@pytest.fixture(scope="session")
def swept(finished, tmp_path_factory):
    """A store with a sweep on a few images; its folder, and the data folder."""
    from wisepatch import Store, sweep
    from wisepatch.datasets import demo

    root = tmp_path_factory.mktemp("swept")
    shutil.copytree(finished[0] / "store", root / "store")
    sizes = demo.SIZES
    try:
        demo.SIZES = {"train": 20, "val": 20, "test": 20}
        sweep(Store(root / "store"), finished[0], alphas="0,0.5,1", rule="alpha=0.5", run="first", run_name="first run")
    finally:
        demo.SIZES = sizes
    return root / "store", finished[0]


@pytest.fixture
def few_images(monkeypatch):
    from wisepatch.datasets import demo

    monkeypatch.setattr(demo, "SIZES", {"train": 20, "val": 20, "test": 20})


@pytest.fixture
def store(swept, tmp_path, few_images):
    """A copy of the store."""
    from wisepatch import Store

    shutil.copytree(swept[0], tmp_path / "store")
    return Store(tmp_path / "store")

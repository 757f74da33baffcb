"""Commands are tested on splits of few images."""

import pytest

from wisepatch.datasets import demo


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 100, "val": 60, "test": 60})

"""Workflows are tested on splits of few images: what they do with them is the same."""

import pytest

from wisepatch.datasets import demo


@pytest.fixture(autouse=True)
def few_images(request, monkeypatch):
    if not request.node.get_closest_marker("slow"):  # those ask how good a model gets
        monkeypatch.setattr(demo, "SIZES", {"train": 100, "val": 60, "test": 60})

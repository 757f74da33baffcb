"""Fixtures of the tests of published datasets."""

import pytest

from tests.datasets.published.layouts import FOLDERS, encoded


@pytest.fixture
def offline(monkeypatch):
    """Downloads that were tried, none of which works."""
    import torchvision.datasets.utils as utils

    tried = []

    def refuse(url, *args, **kwargs):
        tried.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr(utils, "_urlretrieve", refuse)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops=3: url)
    return tried


@pytest.fixture
def no_downloads(monkeypatch):
    """No test fetches anything, whatever it asks for."""
    from torchvision.datasets import gtsrb, utils

    def refuse(url, *args, **kwargs):
        raise OSError("the network is off")

    monkeypatch.setattr(utils, "download_and_extract_archive", refuse)
    monkeypatch.setattr(gtsrb, "download_and_extract_archive", refuse)


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory):
    """Every class of ImageNet: ten training images and one test image, named as they are published."""
    root = tmp_path_factory.mktemp("imagenet")
    content = encoded()
    for number, wnid in enumerate(FOLDERS):
        for folder in (root / "imagenet/train" / wnid, root / "imagenet/val_in_folder" / wnid):
            folder.mkdir(parents=True)
        for image in range(10):
            (root / "imagenet/train" / wnid / f"{wnid}_{image}.JPEG").write_bytes(content)
        (root / "imagenet/val_in_folder" / wnid / f"ILSVRC2012_val_{number + 1:08}.JPEG").write_bytes(content)
    return root

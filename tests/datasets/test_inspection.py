"""A close look at splits."""

import json

import pytest

from tests.samples import broken_png
from wisepatch.datasets import inspection
from wisepatch.datasets.folder_or_csv import folder_dataset
from wisepatch.errors import DataError


def test_deep_look_decodes_all_in_order_and_goes_on_after_broken_images(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "IMAGES_AHEAD", 5)
    for label, number in (("circle", 1), ("triangle", 4)):
        broken_png(shapes / label / f"{number}.png")
    dataset = folder_dataset(shapes)
    reports = [inspection.inspect(dataset, split, tmp_path, deep=True) for split in dataset.available_splits]
    broken = [problem for report in reports for problem in report.broken]
    assert sum(report.images for report in reports) == 18
    assert sum(sum(report.per_class.values()) for report in reports) == 16
    assert len(broken) == 2
    assert any("circle/1.png cannot be read" in problem for problem in broken)
    assert json.loads(json.dumps(reports[0].to_json())) == reports[0].to_json()


@pytest.mark.parametrize("deep", [False, True])
def test_split_without_one_image_that_can_be_decoded_is_an_error(shapes, tmp_path, deep):
    for path in shapes.rglob("*.png"):
        broken_png(path)
    with pytest.raises(DataError, match=r"no image can be decoded; the first: image .* cannot be read"):
        inspection.inspect(folder_dataset(shapes), "train", tmp_path, deep=deep)

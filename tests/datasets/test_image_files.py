"""Image files as samples."""

import numpy as np
import pytest
from PIL import Image

from wisepatch.datasets.decoding import ResizeCheck
from wisepatch.datasets.image_files import FileSamples
from wisepatch.errors import DataError


def test_sixteen_bit_images_are_scaled_and_unknown_ranges_refused(tmp_path):
    pixels = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    Image.fromarray(pixels.astype(np.float32)).save(tmp_path / "float.tif")
    for mode in ("L", "P", "RGBA", "CMYK", "1", "LA"):
        name = "x.jpg" if mode == "CMYK" else "x.png"
        Image.new(mode, (8, 8)).save(tmp_path / name)
        assert FileSamples(((tmp_path / name, 0),))[0][0].mode == "RGB"
    image, _ = FileSamples(((tmp_path / "deep.png", 0),))[0]
    assert np.abs(np.asarray(image)[..., 0] - pixels / 257).max() <= 1
    with pytest.raises(DataError, match=r"float\.tif cannot be read: its pixels are of mode 'F'"):
        FileSamples(((tmp_path / "float.tif", 0),))[0]


def test_boxes_are_cut_out_of_files_and_named(shapes):
    path, boxes = shapes / "circle" / "0.png", [(0, 0, 8, 4), (2, 0, 12, 9)]
    samples = FileSamples([(path, 0), (path, 1)], boxes=boxes)
    assert [samples[i][0].size for i in range(2)] == [(8, 4), (10, 9)]
    assert samples.image_ids() == [f"{path}#0,0,8,4", f"{path}#2,0,12,9"]
    assert samples.fingerprint() != FileSamples([(path, 0), (path, 1)], boxes=boxes[::-1]).fingerprint()


def test_skipping_is_advised_for_what_it_skips_alone(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGB", (1, 1000)).save(tmp_path / "narrow.png")  # too narrow for a large model alone
    samples = FileSamples([(tmp_path / name, 0) for name in ("text.png", "narrow.png")], ResizeCheck(448), as_seen=True)
    for index, advised in ((0, True), (1, False)):
        with pytest.raises(DataError) as caught:
            samples[index]
        assert ("--on-bad-image skip" in caught.value.hint) is advised

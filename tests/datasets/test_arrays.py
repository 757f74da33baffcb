"""Arrays in the files of publishers."""

import io
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import damaged, or_an_error_for_users
from tests.samples import write_mnist
from wisepatch.datasets.arrays import Pictures, read_array, read_dict, read_idx
from wisepatch.errors import DataError
from wisepatch.tasks import find_task

ARRAYS = [
    np.arange(6, dtype=np.uint8).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(3, dtype=">i2"),
    np.array(7),
]


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def idx(shape, data=None, begin=b"\0\0\x08"):
    sizes = b"".join(struct.pack(">I", size) for size in shape)
    return begin + bytes([len(shape)]) + sizes + (bytes(int(np.prod(shape))) if data is None else data)


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_of_numbers_are_read_as_numpy_reads_them(tmp_path, array, version):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version)
    read = read_array(tmp_path / "a.npy")
    assert np.array_equal(read, array)
    assert read.dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize(
    "array",
    [np.array(["a", None]), np.zeros(2, "M8[s]"), np.zeros(2, [("a", "O")]), np.zeros(2, "S4"), np.zeros(2, complex)],
)
def test_arrays_of_anything_else_are_refused(tmp_path, array):
    (tmp_path / "a.npy").write_bytes(npy(array))
    with pytest.raises(ValueError, match=r"no array of numbers|no file of NumPy's with one array"):
        read_array(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "shape", ["(1000000, 1000000)", "(99999999999999999999,)", "(-1,)", "()", "(2, 3,)", "(1,)" * 100]
)
def test_a_header_that_promises_more_than_there_is_takes_no_memory(tmp_path, shape):
    (tmp_path / "a.npy").write_bytes(npy(ARRAYS[0]).replace(b"(2, 3)", shape.encode())[:4000])
    with pytest.raises(ValueError, match=r"not those of an array|no file of NumPy's"):
        read_array(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", b"\0\0\x08", idx((2, 2))[:-1], idx((2, 2)) + b"\0", idx((2**32 - 1,) * 3, b""), idx((2,), b"\0" * 8,
        b"\0\0\x0d"),
        b"\x1f\x8b\x08\x00", b"\0\0\x08\xff", b"<html>",
    ],
)  # fmt: skip
@pytest.mark.parametrize("file", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_mnist_with_a_bad_idx_file_is_an_error_that_names_it(data, tmp_path, file):
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / file).write_bytes(data)
    with pytest.raises(DataError, match=rf"MNIST: .*{file} is not what was published: ") as caught:
        find_task("MNIST").dataset.split("test", tmp_path)
    assert "fetch it again" in caught.value.hint


@pytest.mark.parametrize("change", [lambda labels: labels[:-1]])
def test_mnist_whose_labels_do_not_fit_is_an_error(tmp_path, change):
    path = write_mnist(tmp_path) / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels = change(read_idx(path))
    path.write_bytes(idx(labels.shape, labels.tobytes()))
    with pytest.raises(DataError, match="MNIST"):
        find_task("MNIST").dataset.split("test", tmp_path).image_ids()


def test_grey_pictures_are_given_as_rgb():
    samples = Pictures(np.arange(8, dtype=np.uint8).reshape(2, 2, 2), [0, 1])
    image, label = samples[1]
    assert (image.mode, image.getpixel((1, 0)), label) == ("RGB", (5, 5, 5), 1)


@given(st.sampled_from([npy(array) for array in ARRAYS] + [npy(np.array({"a": [1]}, object))]).flatmap(damaged))
def test_fuzzed_npy_files_give_arrays_or_a_value_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed.npy"
    path.write_bytes(data)
    for read in (read_array, lambda path: read_dict(path, "a")):
        with suppress(ValueError):
            read(path)


@given(st.sampled_from([idx((3, 2, 2)), idx((3,)), idx((0, 28, 28)), idx(())]).flatmap(damaged), st.booleans())
def test_fuzzed_idx_files_give_images_or_an_error(tmp_path_factory, data, images):
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    if not folder.is_dir():
        write_mnist(folder, train=4, test=3)
    kept = {path: path.read_bytes() for path in (folder / "MNIST" / "raw").glob("t10k-*")}
    path = folder / "MNIST" / "raw" / f"t10k-{'images-idx3' if images else 'labels-idx1'}-ubyte"
    path.write_bytes(data)
    try:
        with or_an_error_for_users:
            opened = find_task("MNIST").dataset.split("test", folder)
            assert all(opened[index][0].mode == "RGB" for index in range(len(opened)))
    finally:
        path.write_bytes(kept[path])

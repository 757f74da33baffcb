"""Merging files: the same bytes as merging in memory, in little memory, and every way in which files can be wrong."""

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.fuzzing import changed, damaged, or_an_error_for_users
from tests.weights import merging
from wisepatch.errors import ModelError, StoreError, UsageError
from wisepatch.hookspecs import MergeMethod
from wisepatch.plugins import find_merge_method
from wisepatch.weights import methods, streaming
from wisepatch.weights.methods import interpolate, merge_weights
from wisepatch.weights.parameters import read_params
from wisepatch.weights.streaming import merge_files, read_weights, stream_weights

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
ODD = [0.0, -0.0, float("inf"), float("-inf"), 1e-42, -1e-42, 6e-8, 65504.0, 3e38, -3e38, 1.0, 1 + 2**-23, 0.3, -0.7]
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
SHAPES = [(), (0,), (1,), (3, 0, 2), (5,), (2, 3, 4), (129,)]
WRONG = "give a whole .safetensors file, or the .index.json of one in shards"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Let a few hundred numbers fill several blocks."""
    monkeypatch.setattr(methods, "SCRATCH_ELEMENTS", 24)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("merging")


def save(path, tensors, metadata=None):
    save_file(tensors, path, {"format": "pt"} if metadata is None else metadata)
    return path


def write_raw(path, entries, data, length=None):
    """A file with any header: ``entries`` as they are to be read."""
    text = json.dumps(entries).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def same_bits(one, other):
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(one.contiguous().view(BITS[one.itemsize]), other.contiguous().view(BITS[other.itemsize]))
    )


def numbers(count, dtype, seed, odd):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, generator=generator, dtype=torch.float64) * 0.1
    if odd:
        which = torch.randint(len(ODD) * 2, (count,), generator=generator)
        values = torch.tensor(ODD, dtype=torch.float64)[which % len(ODD)].where(which < len(ODD), values)
    return values.to(dtype)


@st.composite
def models(draw):
    """Two state dicts of the same names and shapes, in types of their own, partly equal."""
    start, end = {}, {}
    for index in range(draw(st.integers(1, 5))):
        name = draw(st.sampled_from("abcde")) + f".{index}"
        shape = draw(st.sampled_from(SHAPES))
        count, odd = torch.Size(shape).numel(), draw(st.booleans())
        one, other = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(DTYPES))
        seed = draw(st.integers(0, 99))
        start[name] = numbers(count, one, seed, odd).reshape(shape)
        end[name] = numbers(count, other, seed + 1, odd).reshape(shape)
        kind = draw(st.sampled_from(["other", "equal", "half equal"]))
        if kind != "other" and count:
            keep = torch.arange(count).reshape(shape) % 2 == 0 if kind == "half equal" else torch.ones(shape).bool()
            end[name] = torch.where(keep, start[name].to(other), end[name])
    start["ids"], end["ids"] = torch.arange(7), torch.arange(7)
    start["mask"] = end["mask"] = torch.tensor([True, False, True])
    return start, end


alphas = st.sampled_from([0.0, 0.5, 1.0, 0.1, 0.9]) | st.floats(0, 1)


def fishers_of(start, seed):
    """Fisher information of most of the tensors: none below zero, some zero, some equal at both ends, some tiny."""
    found = {}, {}
    for number, (name, tensor) in enumerate(sorted(start.items())):
        if tensor.is_floating_point() and (seed + number) % 4:
            first, last = (
                numbers(tensor.numel(), torch.float32, seed + end, odd=False).square() for end in (number, 99)
            )
            which = torch.arange(tensor.numel())
            last = torch.where(which % 5 == 0, first, last) * torch.where(which % 3 == 0, 1e-7, 1.0)
            for fisher, values in zip(found, (first * (which % 7 > 0), last), strict=True):
                fisher[name] = values.reshape(tensor.shape)
    return found


@settings(max_examples=200)
@given(models(), alphas, st.none() | st.integers(0, 99))
def test_the_file_is_byte_for_byte_that_of_mixing_in_memory(scratch, pair, alpha, seed):
    one, other = save(scratch / "one.safetensors", pair[0]), save(scratch / "other.safetensors", pair[1])
    fishers = paths = None
    if seed is not None:
        fishers = fishers_of(pair[0], seed)
        paths = tuple(save(scratch / f"fisher-{end}.safetensors", fisher) for end, fisher in enumerate(fishers))
    digest = merge_files(one, other, alpha, scratch / "merged.safetensors", fishers=paths)
    expected = save(scratch / "expected.safetensors", interpolate(*pair, alpha, fishers)).read_bytes()
    assert (scratch / "merged.safetensors").read_bytes() == expected
    assert digest == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize("elementwise", [False, True])
def test_any_method_merges_any_number_of_files(tmp_path, elementwise):
    models = [weights(seed) | {"ids": torch.arange(3)} for seed in range(3)]
    paths = [save(tmp_path / f"{number}.safetensors", model) for number, model in enumerate(models)]

    def furthest(parents, params, out):
        """The parent with the largest distance from the first, scaled: of a tensor, or of each block."""
        return max(parents[1:], key=lambda each: float((each - parents[0]).norm())) * params["scale"]

    method = MergeMethod("furthest", furthest, elementwise=elementwise)
    digest = stream_weights(method, paths, {"scale": 2.0}, tmp_path / "merged.safetensors")
    expected = save(tmp_path / "expected.safetensors", merge_weights(method, models, {"scale": 2.0})).read_bytes()
    assert (tmp_path / "merged.safetensors").read_bytes() == expected
    assert digest == hashlib.sha256(expected).hexdigest()


def test_fisher_information_of_another_shape_is_refused(tmp_path):
    names = [save(tmp_path / f"{i}.safetensors", {"w": torch.ones(3 + i // 2)}) for i in range(4)]
    with pytest.raises(StoreError, match="the Fisher information of w is not of its shape") as caught:
        merge_files(names[0], names[1], 0.5, tmp_path / "m.safetensors", fishers=(names[2], names[3]))
    assert "same model" in caught.value.hint
    assert not list(tmp_path.glob("*m.safetensors"))


@settings(max_examples=60)
@given(st.data(), st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]), st.floats(0, 1))
def test_equal_bits_stay_as_they_are_also_those_of_nan(scratch, data, dtype, alpha):
    width = torch.empty(0, dtype=dtype).itemsize
    bits = data.draw(st.lists(st.integers(-(2 ** (8 * width - 1)), 2 ** (8 * width - 1) - 1), min_size=1, max_size=80))
    every = torch.tensor(bits, dtype=BITS[width]).view(dtype)
    one, other = save(scratch / "one.safetensors", {"w": every}), save(scratch / "other.safetensors", {"w": every})
    merge_files(one, other, alpha, scratch / "merged.safetensors")
    assert same_bits(load_file(scratch / "merged.safetensors")["w"], every)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_come_out_bit_for_bit_with_nan_and_infinities(tmp_path, dtype):
    odd = torch.tensor([*ODD, float("nan")], dtype=dtype)
    one, other = save(tmp_path / "a.safetensors", {"w": odd}), save(tmp_path / "b.safetensors", {"w": odd.flip(0)})
    merge_files(one, other, 0, tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == one.read_bytes()
    merge_files(one, other, 1, tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == other.read_bytes()


def test_nan_mixed_with_a_number_is_nan_whatever_its_bits(tmp_path):
    nan = torch.tensor([0x7FFF, -1, 0x7F81], dtype=torch.int16).view(torch.bfloat16)
    one = save(tmp_path / "a.safetensors", {"w": nan, "v": torch.ones(3).bfloat16()})
    other = save(tmp_path / "b.safetensors", {"w": torch.ones(3).bfloat16(), "v": nan})
    merge_files(one, other, 0.5, tmp_path / "c.safetensors")
    assert all(torch.isnan(tensor).all() for tensor in load_file(tmp_path / "c.safetensors").values())


def weights(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"visual.proj": (17, 9), "text.proj": (300,), "logit_scale": (), "empty": (0, 4)}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def write_shards(folder, tensors, cut, name="model"):
    folder.mkdir()
    parts = [dict(list(tensors.items())[:cut]), dict(list(tensors.items())[cut:])]
    places = {}
    for number, part in enumerate(parts):
        save(folder / f"{name}-{number}.safetensors", part)
        places |= dict.fromkeys(part, f"{name}-{number}.safetensors")
    index = folder / f"{name}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def test_shards_of_any_cut_and_order_are_read_and_one_file_is_written(tmp_path):
    start, end = weights(0), dict(reversed(weights(1).items()))
    one, other = write_shards(tmp_path / "one", start, 1), write_shards(tmp_path / "other", end, 3, "weights")
    expected = save(tmp_path / "expected.safetensors", interpolate(start, end, 0.3)).read_bytes()
    merge_files(one, other, 0.3, tmp_path / "merged.safetensors")
    assert (tmp_path / "merged.safetensors").read_bytes() == expected
    merge_files(save(tmp_path / "whole.safetensors", start), other, 0.3, tmp_path / "merged.safetensors")
    assert (tmp_path / "merged.safetensors").read_bytes() == expected


def test_misaligned_data_in_any_order_with_metadata_and_names_of_any_script(tmp_path):
    start, end = torch.randn(70), torch.randn(70).double()
    about = {
        "__metadata__": {"made by": "hand", "format": "pt"},
        "mask": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]},
        "Gewicht \u00e4": {"dtype": "F32", "shape": [70], "data_offsets": [3, 283]},
    }
    one = write_raw(tmp_path / "one.safetensors", about, bytes([1, 0, 1]) + start.numpy().tobytes())
    about = {
        "Gewicht \u00e4": {"dtype": "F64", "shape": [70], "data_offsets": [0, 560]},
        "mask": {"dtype": "BOOL", "shape": [3], "data_offsets": [560, 563]},
    }
    other = write_raw(tmp_path / "other.safetensors", about, end.numpy().tobytes() + bytes([1, 0, 1]))
    merge_files(one, other, 0.7, tmp_path / "merged.safetensors")
    merged = load_file(tmp_path / "merged.safetensors")
    expected = interpolate({"w": start}, {"w": end}, 0.7)["w"]
    assert same_bits(merged["Gewicht \u00e4"], expected)
    assert merged["mask"].tolist() == [True, False, True]
    assert read_weights(tmp_path / "merged.safetensors")[1] == {"format": "pt", "made by": "hand"}
    assert b'{"__metadata__":{"format":"pt","made by":"hand"}' in (tmp_path / "merged.safetensors").read_bytes()


def test_a_file_without_metadata_gives_one_without(tmp_path):
    save_file(weights(0), tmp_path / "a.safetensors")
    other = save(tmp_path / "b.safetensors", weights(1))
    merge_files(tmp_path / "a.safetensors", other, 0.5, tmp_path / "c.safetensors")
    save_file(interpolate(weights(0), weights(1), 0.5), tmp_path / "d.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "d.safetensors").read_bytes()


def test_output_may_be_one_of_the_inputs_and_is_replaced_in_one_step(tmp_path):
    one, other = save(tmp_path / "a.safetensors", weights(0)), save(tmp_path / "b.safetensors", weights(1))
    merge_files(one, other, 0.5, one)
    expected = interpolate(weights(0), weights(1), 0.5)
    assert all(same_bits(tensor, expected[name]) for name, tensor in load_file(one).items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_only_what_is_kept_is_compared_and_written(tmp_path):
    start, end = weights(0) | {"classifier.weight": torch.ones(2)}, weights(1)
    one, other = save(tmp_path / "a.safetensors", start), save(tmp_path / "b.safetensors", end)
    merge_files(one, other, 0.5, tmp_path / "c.safetensors", keep=lambda name: not name.startswith("classifier."))
    assert set(load_file(tmp_path / "c.safetensors")) == set(end)


def test_digest_can_be_left_out(tmp_path):
    one, other = save(tmp_path / "a.safetensors", weights(0)), save(tmp_path / "b.safetensors", weights(1))
    assert merge_files(one, other, 0.5, tmp_path / "c.safetensors", digest=False) == ""
    digest = merge_files(one, other, 0.5, tmp_path / "d.safetensors")
    assert digest == hashlib.sha256((tmp_path / "c.safetensors").read_bytes()).hexdigest()


def test_counters_of_batch_normalisation_may_differ(tmp_path):
    one = save(tmp_path / "a.safetensors", {"bn.num_batches_tracked": torch.tensor(3)})
    other = save(tmp_path / "b.safetensors", {"bn.num_batches_tracked": torch.tensor(9)})
    for alpha in (0, 0.5, 1):
        merge_files(one, other, alpha, tmp_path / "c.safetensors")
        assert int(load_file(tmp_path / "c.safetensors")["bn.num_batches_tracked"]) == 3


def refused(tmp_path, start, end, alpha=0.5):
    """Merge two files that do not fit; the error, and nothing left behind."""
    one, other = save(tmp_path / "a.safetensors", start), save(tmp_path / "b.safetensors", end)
    with pytest.raises(StoreError) as caught:
        merge_files(one, other, alpha, tmp_path / "c.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]
    return caught.value


@pytest.mark.parametrize("alpha", [0, 0.5, 1])
def test_integers_that_differ_are_an_error_that_names_them(tmp_path, alpha):
    start = {"w": torch.ones(300), "ids": torch.arange(200)}
    error = refused(tmp_path, start, start | {"ids": torch.arange(200).clamp(max=198)}, alpha)
    assert error.message == "the integer buffer ids differs between the files"
    assert error.hint == "it cannot be mixed"


def test_other_names_shapes_and_kinds_are_errors(tmp_path):
    one = torch.ones(2)
    error = refused(tmp_path, {"w": one, "b": one + 1}, {"w": one, "c": one + 1})
    assert error.message == "the files are of different architectures: 2 tensors are in one of them only, such as b, c"
    assert error.hint == "mix files that were made from the same model (and with the same kind of head)"
    error = refused(tmp_path, {"w": one}, {"w": torch.ones(2, 1)})
    assert error.message == ("the files are of different architectures: 1 shapes differ, such as w (2,) and (2, 1)")
    error = refused(tmp_path, {"w": one}, {"w": torch.ones(2, dtype=torch.int32)})
    assert error.message == "w is of different types in the files: torch.float32, torch.int32"
    assert error.hint == "mix files that were made from the same model"


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_outside_the_line_is_an_error(tmp_path, alpha):
    with pytest.raises(UsageError, match=r"lies outside \[0, 1\]"):
        merge_files(tmp_path / "a", tmp_path / "b", alpha, tmp_path / "c")


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        ({"w": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, bytes(8), "w is of the type float8_e4m3fn"),
        ({"w": F32 | {"shape": [3]}}, bytes(8), ""),
        ({"w": F32 | {"shape": [-2]}}, bytes(8), ""),
        ({"w": F32 | {"data_offsets": [-8, 0]}}, bytes(8), ""),
        ({"w": F32 | {"data_offsets": [1, 9]}}, bytes(9), ""),
        ({"w": F32}, bytes(7), ""),
        ({"w": {"dtype": "F32"}}, bytes(8), ""),
        ([1, 2], b"", ""),
        ({"w": 3}, b"", ""),
    ],
)
def test_headers_that_are_wrong_are_errors_that_say_how(tmp_path, header, data, reason):
    path = write_raw(tmp_path / "a.safetensors", header, data)
    with pytest.raises(ModelError) as caught:
        merge_files(path, path, 0.5, tmp_path / "c.safetensors")
    assert caught.value.message.startswith(f"{path} is no safetensors file: {reason}")
    assert caught.value.hint == WRONG
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ""),
        (b"PK\x03\x04" + bytes(100), ""),
        ((9).to_bytes(8, "little") + b"{not json", ""),
        ((4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc", ""),
        ((100_000).to_bytes(8, "little") + b"[" * 100_000, ""),
        (None, "it does not exist"),
    ],
)
def test_files_that_are_none_are_errors(tmp_path, content, reason):
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    assert caught.value.message.startswith(f"{path} is no safetensors file: {reason}")


def test_broken_indexes_are_errors_that_name_what_is_missing(tmp_path):
    index = write_shards(tmp_path / "one", weights(0), 2)
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": places | {"more": "model-1.safetensors"}}))
    with pytest.raises(ModelError, match=r"says that more is in model-1\.safetensors, which has no such tensor"):
        read_weights(index)
    (index.parent / "model-1.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-1\.safetensors is no safetensors file: it does not exist"):
        read_weights(index)
    for text in ("{", "[]", '{"weight_map": {"w": 3}}'):
        index.write_text(text)
        with pytest.raises(ModelError, match="is no index of safetensors files") as caught:
            read_weights(index)
        assert "weight_map" in caught.value.hint


ENTRY = '{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]}'


@pytest.mark.parametrize(
    ("header", "size", "reason"),
    [
        (f'{{"a":{ENTRY % (0, 8)},"b":{ENTRY % (4, 12)}}}', 12, ""),
        (f'{{"a":{ENTRY % (0, 8)},"b":{ENTRY % (0, 8)}}}', 8, ""),
        (f'{{"a":{ENTRY % (0, 8)},"b":{ENTRY % (12, 20)}}}', 20, ""),
        (f'{{"a":{ENTRY % (4, 12)}}}', 12, ""),
        (f'{{"a":{ENTRY % (0, 8)}}}', 12, ""),
        (f'{{"a":{ENTRY % (0, 8)},"a":{ENTRY % (0, 8)}}}', 8, "'a' is named twice"),
        (f'{{"a":{ENTRY % (0, 8)},"a":{ENTRY % (8, 16)}}}', 16, "'a' is named twice"),
        ('{"a":' + (ENTRY % (0, 8))[:-1] + ',"shape":[2]}}', 8, "'shape' is named twice"),
        (f'{{"__metadata__":{{"a":"1","a":"2"}},"a":{ENTRY % (0, 8)}}}', 8, "'a' is named twice"),
        ('{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}', 0, ""),
        (f'{{"a":{ENTRY % (0, 8)}}}more', 8, ""),
        (
            "{" + ",".join(f'"{number}":{ENTRY % (0, 0)}' for number in range(50_001)) + "}",
            0,
            "it names 50,001 tensors",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_overlaps_holes_and_names_that_stand_twice_are_errors(tmp_path, header, size, reason):
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(size))
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    assert caught.value.message.startswith(f"{path} is no safetensors file: {reason}")


@pytest.mark.parametrize(
    "shard", ["../one.safetensors", "ABSOLUTE", "folder/one.safetensors", "..", ".", "", "a\\b", "a\0b", 5, None, ["a"]]
)
def test_shards_outside_the_folder_of_their_index_are_refused(tmp_path, shard):
    outside = save(tmp_path / "one.safetensors", {"w": torch.ones(2)})
    (tmp_path / "model" / "folder").mkdir(parents=True)
    save(tmp_path / "model" / "folder" / "one.safetensors", {"w": torch.ones(2)})
    index = tmp_path / "model" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": str(outside) if shard == "ABSOLUTE" else shard}}))
    with pytest.raises(ModelError, match=r"is no (index of )?safetensors file"):
        read_weights(index)
    index.write_text('{"weight_map": {"w": "one.safetensors", "w": "two.safetensors"}}')
    with pytest.raises(ModelError, match="'w' is named twice"):
        read_weights(index)


HEADER = {
    "__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "I64", "shape": [1, 1], "data_offsets": [8, 16]},
    "c": {"dtype": "BF16", "shape": [0, 3], "data_offsets": [16, 16]},
}  # fmt: skip
headers = st.just(HEADER).flatmap(changed).map(lambda header: json.dumps(header).encode())
bodies = st.just(bytes(16)) | st.binary(max_size=24)
whole = st.builds(lambda text, data: len(text).to_bytes(8, "little") + text + data, headers, bodies)


@given(whole | whole.flatmap(damaged))
def test_fuzzed_safetensors_files_give_tensors_or_an_error(scratch, data):
    path = scratch / "fuzzed.safetensors"
    path.write_bytes(data)
    with or_an_error_for_users:
        stream_weights(methods.LINEAR, [path, path], {"alpha": 0.5}, scratch / "fuzzed-merge.safetensors")


INDEX = {"metadata": {"total_size": 8}, "weight_map": {"a": "shard.safetensors", "b": "shard.safetensors"}}


@given(st.just(INDEX).flatmap(changed).map(json.dumps) | st.just(json.dumps(INDEX).encode()).flatmap(damaged))
def test_fuzzed_indexes_give_tensors_or_an_error(scratch, text):
    save(scratch / "shard.safetensors", {"a": torch.ones(2), "b": torch.ones(1)})
    path = scratch / "fuzzed.index.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with or_an_error_for_users:
        read_weights(path)


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    one, other = save(tmp_path / "a.safetensors", weights(0)), save(tmp_path / "b.safetensors", weights(1))
    output = tmp_path / "c.safetensors"
    output.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StoreError) as caught:
            merge_files(one, other, 0.5, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.message == f"{output} cannot be written: File too large"
    assert caught.value.hint == "free space there, or name another place"
    assert output.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 3


def test_folder_that_is_not_there_is_an_error(tmp_path):
    one = save(tmp_path / "a.safetensors", weights(0))
    with pytest.raises(StoreError, match=r"c\.safetensors cannot be written: No such file or directory"):
        merge_files(one, one, 0.5, tmp_path / "none" / "c.safetensors")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_that_of_the_blocks(tmp_path):
    """Two files of 120 MB are mapped; what is allocated beside stays below a tenth of one."""
    for value, name in enumerate("ab"):
        save(tmp_path / name, {f"w{i}": torch.full((5_000_000,), value + 0.5) for i in range(6)})
    code = """if True:
        import threading
        from pathlib import Path
        import torch
        from wisepatch.weights.streaming import merge_files

        def anonymous():
            return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])

        def watch():
            while not done.wait(0.002):
                seen.append(anonymous())

        torch.ones(2).sub_(1)
        before, seen, done = anonymous(), [], threading.Event()
        thread = threading.Thread(target=watch)
        thread.start()
        merge_files(Path("a"), Path("b"), 0.25, Path("c"))
        done.set()
        thread.join()
        print(max(seen) - before)
    """
    environment = os.environ | {"PYTHONPATH": str(Path(streaming.__file__).parents[2])}
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert int(out.stdout) < 12_000
    assert all(float(tensor.min()) == float(tensor.max()) == 0.75 for tensor in load_file(tmp_path / "c").values())


@pytest.mark.parametrize(
    "method", ["task-arithmetic", "ties", "dare", "breadcrumbs", "lines", "model-stock", "tsv-m", "iso-cts"]
)
def test_several_ends_are_merged_from_file_to_file_as_in_memory(tmp_path, method):
    parents = merging.models(ends=3)
    paths = [tmp_path / f"{number}.safetensors" for number in range(len(parents))]
    for path, parent in zip(paths, parents, strict=True):
        save_file(parent, path)
    own = find_merge_method(method)
    (params,) = read_params(own, [], 3)
    stream_weights(own, paths, params, tmp_path / "merged.safetensors")
    expected, written = merge_weights(own, parents, params), load_file(tmp_path / "merged.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())
    kept = tmp_path / "kept.safetensors"
    stream_weights(own, paths, params, kept, keep=lambda name: name.startswith("visual.b"))
    assert torch.equal(load_file(kept)["visual.b"], expected["visual.b"])

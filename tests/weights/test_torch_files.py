"""The reader of PyTorch's files: tensors as they were, nothing that runs, hangs or takes all memory."""

import copyreg
import io
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from contextlib import chdir, suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import damaged
from wisepatch.errors import ModelError
from wisepatch.weights.restricted_unpickler import Placeholder
from wisepatch.weights.state_dicts import read_state_dict
from wisepatch.weights.stored_tensors import StoredTensor
from wisepatch.weights.torch_files import read_torch_file, said_of

TENSORS = {
    "float": torch.arange(6.0).reshape(2, 3),
    "half": torch.ones(3, dtype=torch.float16),
    "brain": torch.ones(2, dtype=torch.bfloat16),
    "long": torch.arange(4),
    "flags": torch.tensor([True, False]),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "one": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "part": torch.arange(10.0)[3:5],
    "parameter": torch.nn.Parameter(torch.ones(2)),
}


def save(path, content, how="zip"):
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    return path


@pytest.mark.parametrize("how", ["zip", "row", "pickle"])
def test_tensors_of_every_form_are_read_as_they_were(tmp_path, how):
    content = OrderedDict(TENSORS) | {"epoch": 3, "nested": [{"again": TENSORS["long"]}]}
    read = read_torch_file(save(tmp_path / "w.pt", content, how))
    assert read["epoch"] == 3
    for name, tensor in TENSORS.items():
        assert isinstance(read[name], StoredTensor)
        assert read[name].read().dtype == tensor.dtype
        assert torch.equal(read[name].read(), tensor.detach())
    assert torch.equal(read["nested"][0]["again"].read(), TENSORS["long"])


def test_a_module_is_placeholders_with_its_tensors(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.GELU())
    for how in ("zip", "row", "pickle"):
        read = read_torch_file(save(tmp_path / "m.pt", module, how))
        assert isinstance(read, Placeholder)
        assert read.path == "torch.nn.modules.container.Sequential"
        linear = read.state["_modules"]["0"]
        assert torch.equal(linear.state["_parameters"]["weight"].read(), module[0].weight.detach())
        assert read.state["_modules"]["1"].kind == "GELU"


class Reduced:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


class Persistent(pickle.Pickler):
    def persistent_id(self, each):
        return ("module", os.system, "touch ran") if each == "here" else None


def persistent():
    out = io.BytesIO()
    Persistent(out, 2).dump({"a": "here"})
    return out.getvalue()


def extension():
    copyreg.add_extension(os.system.__module__, "system", 0xABCDEF)
    try:
        return pickle.dumps(Reduced(os.system, ("touch ran",)), 2)
    finally:
        copyreg.remove_extension(os.system.__module__, "system", 0xABCDEF)


def storage_of(data):
    """A module's pickle whose tensor's bytes are a pickle of their own, which PyTorch hands to torch.load."""
    return b"\x80\x02ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(data)) + data + b"\x85R."


SYSTEM = pickle.dumps(Reduced(os.system, ("touch ran",)), 2)
PAYLOADS = {
    "os.system": (SYSTEM, r"asks for (posix|nt|os)\.system"),
    "eval": (pickle.dumps(Reduced(eval, ("open('ran', 'w')",))), r"asks for builtins\.eval"),
    "getattr": (pickle.dumps(Reduced(getattr, ("a", "upper"))), r"asks for builtins\.getattr"),
    "nested": (pickle.dumps(OrderedDict(a=[Reduced(os.system, ("touch ran",))])), r"\.system"),
    "in a call of ours": (b"ccollections\nOrderedDict\n(cposix\nsystem\nS'touch ran'\ntR.", r"posix\.system"),
    "persistent id": (persistent(), r"\.system"),
    "persistent text": (b"Ptouch ran\n.", "the instruction PERSID"),
    "extension code": (extension(), "the instruction EXT4"),
    "copyreg": (b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.", r"copy_reg\._reconstructor"),
    "instance": (b"(S'touch ran'\nios\nsystem\n.", "the instruction INST"),
    "object": (b"(cwhatever\nof\nS'touch ran'\no.", "the instruction OBJ"),
    "new object with names": (b"\x80\x04cwhatever\nof\n)}\x92.", "the instruction NEWOBJ_EX"),
    "dotted name": (
        b"\x80\x04\x8c\x05torch\x8c\x11hub.os.system.foo\x93\x8c\x09touch ran\x85R.",
        r"asks for torch\.hub\.os\.system",
    ),
    "name of the library": (b"ctorch.hub\nload\n(S'a'\nS'b'\ntR.", r"asks for torch\.hub\.load"),
    "torch.load": (b"ctorch.serialization\nload\n(S'x'\ntR.", r"asks for torch\.serialization\.load"),
    "memo": (b"cposix\nsystem\nq\x010h\x01(S'touch ran'\ntR.", r"posix\.system"),
    "memo of a call": (b"(S'touch ran'\ntq\x010cwhatever\nrun\nh\x01R.", r"asks for whatever\.run"),
    "text called": (b"S'os.system'\n(S'touch ran'\ntR.", "not callable|another kind"),
    "state of a class": (b"ccollections\nOrderedDict\n}S'__reduce__'\nS'x'\nsb.", "changes something"),
    "state of a builder": (b"cnumpy\ndtype\n}S'__call__'\nS'x'\nsb.", "changes something|another kind"),
    "in a storage": (storage_of(SYSTEM), r"\.system"),
    "storage in a storage": (storage_of(storage_of(b"N.")), "asks for a storage within a storage"),
    "zip in a storage": (storage_of(b"PK\x03\x04" + b"\0" * 40), "a zip within a storage"),
    "type of a tensor": (
        b"ctorch._tensor\n_rebuild_from_type_v2\n(cwhatever\nrun\ncwhatever\nkind\n(S'x'\nt}tR.",
        r"asks for whatever\.run",
    ),
}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_calls_is_refused_by_name_and_nothing_ran(tmp_path, monkeypatch, payload):
    monkeypatch.chdir(tmp_path)
    data, words = PAYLOADS[payload]
    (tmp_path / "bomb.pt").write_bytes(data)
    with pytest.raises(ModelError, match=words) as caught:
        read_torch_file(tmp_path / "bomb.pt")
    assert "bomb.pt cannot be read" in caught.value.message
    with zipfile.ZipFile(tmp_path / "zipped.pt", "w") as archive:
        archive.writestr("archive/data.pkl", data)
    with pytest.raises(ModelError, match=words):
        read_torch_file(tmp_path / "zipped.pt")
    assert not (tmp_path / "ran").exists()


def test_payloads_would_run_in_python_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(SYSTEM)
    assert (tmp_path / "ran").exists()


def zip_of(tmp_path, records, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(tmp_path / "w.pt", "w", method) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return (tmp_path / "w.pt").read_bytes()


def tensor_of(count, shape, strides, promised=None):
    """A pickle of a tensor over the record 0, with any numbers."""
    storage = f"((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI{promised or count}\ntQ".encode()
    numbers = "".join(f"({''.join(f'I{each}{chr(10)}' for each in part)}t" for part in (shape, strides)).encode()
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + storage + b"I0\n" + numbers + b"I00\nNtR."


def read_all(content):
    waiting = [content]
    while waiting:
        each = waiting.pop()
        if isinstance(each, StoredTensor):
            each.read()
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each


PROMISES = {
    "a storage of 10 GB": (
        {"a/data.pkl": tensor_of(4, (4,), (1,), promised=2_500_000_000), "a/data/0": b"\0" * 16},
        "promises",
    ),
    "a shape of 10 GB": (
        {"a/data.pkl": tensor_of(4, (50_000, 50_000), (0, 0)), "a/data/0": b"\0" * 16},
        "promises a tensor",
    ),
    "steps beyond the end": ({"a/data.pkl": tensor_of(4, (4,), (2**40,)), "a/data/0": b"\0" * 16}, "promises a tensor"),
    "a record that is short": ({"a/data.pkl": tensor_of(4, (4,), (1,)), "a/data/0": b"\0" * 15}, "promises 16 bytes"),
    "one record many times": (
        {"a/data.pkl": b"(" + tensor_of(100_000, (100_000,), (1,))[:-1] * 400 + b"l.", "a/data/0": b"\0" * 400_000},
        "its tensors take",
    ),
    "no record": ({"a/data.pkl": tensor_of(4, (4,), (1,))}, "has no record '0'"),
    "two of them": ({"a/data.pkl": b"N.", "b/data.pkl": b"N."}, "without PyTorch's data.pkl"),
    "a folder, zipped": ({"model/weights.pt": b"N."}, "without PyTorch's data.pkl: unpack it"),
    "numbers of another machine": ({"a/data.pkl": b"N.", "a/byteorder": b"big"}, "big-endian"),
}


@pytest.mark.parametrize("case", PROMISES)
def test_what_a_file_promises_is_compared_with_what_it_holds_before_memory_is_taken(tmp_path, case):
    records, words = PROMISES[case]
    zip_of(tmp_path, records)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=words), said_of(tmp_path / "w.pt"):
            read_all(read_torch_file(tmp_path / "w.pt"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30_000_000


def test_compressed_records_are_refused_before_they_are_unpacked(tmp_path):
    records = {"a/data.pkl": tensor_of(10_000_000, (10_000_000,), (1,)), "a/data/0": b"\0" * 40_000_000}
    assert len(zip_of(tmp_path, records, zipfile.ZIP_DEFLATED)) < 100_000
    with pytest.raises(ModelError, match="is compressed, and PyTorch compresses nothing"):
        read_torch_file(tmp_path / "w.pt")


@pytest.mark.parametrize("how", ["zip", "row", "pickle"])
def test_half_a_file_and_a_flipped_bit_are_said(tmp_path, how):
    path = save(tmp_path / "w.pt", {"w": torch.randn(5000)}, how)
    whole = path.read_bytes()
    for length in (len(whole) // 2, len(whole) - 3, 5, 1, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"w\.pt cannot be read: it"):
            read_all(read_torch_file(path))
    if how == "zip":  # the others have no checksum
        path.write_bytes(whole.replace(whole[5000:5004], bytes(each ^ 1 for each in whole[5000:5004])))
        with pytest.raises(Exception, match=r"is damaged"):
            read_all(read_torch_file(path))


EQUAL_HASHES = [each * (2**61 - 1) for each in range(1, 200_000)]


@pytest.mark.parametrize(
    "data",
    [
        b"(" * 200_000,
        b"]q\x01h\x01ah\x01a.",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"(lq\x00"
        + b"".join(b"0(" + bytes([104, each]) * 10 + b"lq" + bytes([each + 1]) for each in range(100))
        + b".",
        b"I1\n0" * 10_000 + b"N.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"T\xff\xff\xff\x7f.",
        b"Nr\xff\xff\xff\x7f.",
        b"(" + b"ccollections\nOrderedDict\n(((((I1\ntI2\ntI3\nttltR.",
        b"(" + b"".join(b"I%d\nN" % each for each in EQUAL_HASHES) + b"d.",
        b"ccollections\nCounter\n((" + b"".join(b"(I%d\nNt" % each for each in EQUAL_HASHES) + b"ltR.",
        b"N" + b"".join(b"p%d\n" % each for each in EQUAL_HASHES) + b".",
    ],
    ids=range(12),
)
def test_depth_references_lengths_and_equal_hashes_take_neither_time_nor_memory(tmp_path, data):
    (tmp_path / "w.pt").write_bytes(data)
    begun = time.monotonic()
    with suppress(ModelError):
        read_torch_file(tmp_path / "w.pt")
    assert time.monotonic() - begun < 60


def test_directory_of_a_zip_that_no_model_has_is_refused_before_it_is_read(tmp_path):
    entry = b"PK\x01\x02" + b"\0" * 24 + b"\1" + b"\0" * 17 + b"a"
    number, size = 400_000, 400_000 * len(entry)
    end = b"PK\x06\x06" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, number, number, size, 4)
    end += b"PK\x06\x07" + struct.pack("<LQL", 0, 4 + size, 1)
    end += b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    (tmp_path / "w.pt").write_bytes(b"PK\x03\x04" + entry * number + end)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="more parts than any model"):
            read_torch_file(tmp_path / "w.pt")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_long_name_is_cut_in_the_error(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"cos\n" + b"a" * 1_000_000 + b"\n)R.")
    with pytest.raises(ModelError, match=r"asks for os\.a+, and no code") as caught:
        read_torch_file(tmp_path / "w.pt")
    assert len(caught.value.message) < 300


def test_pipe_is_no_file_of_weights(tmp_path):
    os.mkfifo(tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt is no file"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("use", [
    b"ccollections\ndeque\n(h\x01tR", b"ccollections\nCounter\n(h\x02tR", b"cwhatever\nKind\n)\x81h\x02b",
    b"cnumpy\ndtype\n(S'u1'\ntRq\x03cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nNNtR(I1\n(I400000\nth\x03I00\nh\x04tb",
], ids=["list", "dict", "state", "array"])  # fmt: skip
def test_one_value_that_is_used_again_and_again_takes_no_memory(tmp_path, use):
    values = b"(" + b"N" * 200_000 + b"lq\x010(" + b"".join(b"I%d\nN" % number for number in range(30_000)) + b"dq\x020"
    text = b"B" + struct.pack("<I", 400_000) + b"x" * 400_000 + b"q\x040"
    (tmp_path / "w.pt").write_bytes(values + text + b"(" + use * 200 + b"l.")
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="uses one value again and again"):
            read_torch_file(tmp_path / "w.pt")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000_000


def test_more_parts_than_a_model_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("wisepatch.weights.stored_tensors.MAX_READS", 1000)
    (tmp_path / "w.pt").write_bytes(b"I1\n0" * 600 + b"N.")
    with pytest.raises(ModelError, match="it has more parts than any model"):
        read_torch_file(tmp_path / "w.pt")


def test_an_empty_file_is_said(tmp_path):
    (tmp_path / "w.pt").touch()
    with pytest.raises(ModelError, match=r"w\.pt cannot be read: it is empty"):
        read_torch_file(tmp_path / "w.pt")


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ModelError, match=r"none\.pt cannot be read: No such file"):
        read_torch_file(tmp_path / "none.pt")


def test_a_file_that_may_not_be_read_is_said(tmp_path, monkeypatch):
    path = save(tmp_path / "w.pt", SMALL)
    monkeypatch.setattr("pathlib.Path.open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(ModelError, match=r"w\.pt cannot be read: Permission denied"):
        read_state_dict(path)


def dumped(content, how):
    out = io.BytesIO()
    if how == "pickle":
        return pickle.dumps(content)
    torch.save(content, out, _use_new_zipfile_serialization=how == "zip")
    return out.getvalue()


SMALL = {"w": torch.ones(2, 2), "module": torch.nn.Linear(1, 1), "epoch": 1}
whole = st.sampled_from(
    [dumped(SMALL, how) for how in ("zip", "row", "pickle")] + [data for data, _ in PAYLOADS.values()]
)


@given(whole.flatmap(damaged))
def test_fuzzed_files_of_weights_give_values_or_an_error_for_users(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    (folder / "fuzzed.pt").write_bytes(data)
    with chdir(folder), suppress(ModelError):
        read_state_dict(folder / "fuzzed.pt")
    assert not (folder / "ran").exists()


def test_long_lines_and_long_names_are_read_whole(tmp_path):
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"note": "x" * 10_000}, 0))
    assert read_torch_file(tmp_path / "w.pt") == {"note": "x" * 10_000}
    torch.save({"model." * 200_000 + "w": torch.ones(1)}, tmp_path / "w.pt")
    assert list(read_state_dict(tmp_path / "w.pt").tensors) == ["w"]

"""Files: hashes of tensors, publication by rename, names of unfinished things."""

import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from wisepatch.errors import StoreError
from wisepatch.files import (
    PARTIAL,
    check_room,
    hash_tensors,
    in_utf8,
    partial_folder,
    publish,
    remove,
    remove_leftovers,
    seal,
    set_aside,
    unseal,
    write_durably,
    write_tensors,
)


def test_the_hash_of_tensors_ignores_their_order_and_layout():
    base = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": base, "b": torch.tensor(1)}
    assert hash_tensors(tensors) == hash_tensors(dict(reversed(tensors.items())))
    assert hash_tensors({"a": base.T.contiguous().T, "b": torch.tensor(1)}) == hash_tensors(tensors)
    assert len(hash_tensors(tensors)) == 64


def test_the_hash_of_tensors_depends_on_names_types_shapes_and_bytes():
    zeros = torch.zeros(2, 3)
    different = [
        {},
        {"w": zeros},
        {"v": zeros},
        {"w": zeros.to(torch.int32)},
        {"w": zeros.half()},
        {"w": zeros.bfloat16()},
        {"w": zeros.reshape(3, 2)},
        {"w": zeros.reshape(6)},
        {"w": -zeros},
        {"w": zeros.bool()},
        {"w": torch.zeros(0)},
        {"w": torch.tensor(0.0)},
        {"w": zeros, "v": zeros},
    ]
    assert len({hash_tensors(tensors) for tensors in different}) == len(different)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("photos", "photos"), ("猫", "猫"), (os.fsdecode(b"caf\xe9"), r"caf\xe9"), ("\ud800 \udce9", r"\ud800 \udce9"),
        (os.fsdecode("猫".encode() + b"\xff"), r"猫\xff"), ("猫".encode().decode("ascii", "surrogateescape"), "猫"),
    ],
)  # fmt: skip
def test_names_of_files_are_text_whatever_their_bytes(name, text):
    assert in_utf8(name) == text


def folder_with(path, text):
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_publishing_renames_and_leaves_nothing_else(tmp_path):
    assert publish(folder_with(tmp_path / "partial", "new"), tmp_path / "entry", lambda: False)
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_publishing_keeps_a_whole_one_and_replaces_one_that_is_not(tmp_path):
    folder_with(tmp_path / "entry", "old")
    partial = folder_with(tmp_path / "partial", "new")
    assert not publish(partial, tmp_path / "entry", lambda: True)
    assert (tmp_path / "entry" / "file").read_text() == "old"
    assert publish(partial, tmp_path / "entry", lambda: False)
    assert (tmp_path / "entry" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_publishing_replaces_a_file_that_is_in_the_way(tmp_path):
    (tmp_path / "entry").write_text("in the way")
    assert publish(folder_with(tmp_path / "partial", "new"), tmp_path / "entry", lambda: False)
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_write_that_fails_leaves_the_old_bytes_and_nothing_else(tmp_path, monkeypatch):
    write_durably(tmp_path / "file", b"old")

    def fail(_):
        raise OSError("no room")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no room"):
        write_durably(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_removing_takes_files_folders_and_links_and_no_link_is_followed(tmp_path):
    target = folder_with(tmp_path / "target", "precious")
    (tmp_path / "link").symlink_to(target)
    for name in ("link", "gone"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    remove(target)
    assert list(tmp_path.iterdir()) == []


def test_what_no_process_writes_is_removed_and_what_one_writes_stays(tmp_path):
    names = [
        f"{PARTIAL}01234567",
        f"{PARTIAL}89abcdef",
        ".partial-1-01234567",
        ".partial-01234567",
        f"{PARTIAL}x",
        "mine",
    ]
    for name in names[:1] + names[2:]:
        folder_with(tmp_path / name, "half")
    (tmp_path / names[1]).write_text("half a file")
    (tmp_path / f"{PARTIAL}00000000.lock").touch()
    with partial_folder(tmp_path) as writing:
        gone = remove_leftovers(tmp_path)
        assert [path.name for path in gone] == [f"{PARTIAL}00000000.lock", *names[:2]]
        assert writing.is_dir()
    assert remove_leftovers(tmp_path) == []
    assert [path.name for path in remove_leftovers(tmp_path, older=True)] == [names[2]]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[3:])
    assert remove_leftovers(tmp_path / "nowhere") == []


def test_room_is_looked_for_on_the_disk_where_a_path_will_lie(tmp_path, monkeypatch):
    check_room(tmp_path / "a" / "b", 1)
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or shutil._ntuple_diskusage(9, 8, 10**6))
    with pytest.raises(StoreError) as caught:
        check_room(tmp_path / "a" / "b", 2 * 10**6)
    assert caught.value.message == f"{tmp_path / 'a' / 'b'} needs 2 MB, and its disk has 1 MB free"
    assert asked == [tmp_path]


@pytest.mark.parametrize("record", [{}, {"a": "", "b": {"c": [1.5, None, "\u00e4\ud800"]}}, {"files": {"x": "0" * 64}}])
def test_every_flipped_bit_breaks_a_seal(record):
    sealed = seal(record)
    assert unseal(sealed) == record
    for place in range(len(sealed)):
        for bit in range(8):
            broken = sealed[:place] + bytes([sealed[place] ^ 1 << bit]) + sealed[place + 1 :]
            try:
                assert "sha256" not in unseal(broken)  # the name of the seal itself: the reader knows no such field
                assert unseal(broken) != record
            except (ValueError, RecursionError):
                pass


@pytest.mark.parametrize("data", [b"[]", b"7", b'{"sha256": ""}', b'{"sha256": 7}', b'{"sha256": null}', b"{", b""])
def test_what_is_no_sealed_record_is_an_error(data):
    with pytest.raises(ValueError, match=r"JSON|Expecting|sha256"):
        unseal(data)


def test_a_record_without_a_seal_is_read(tmp_path):
    assert unseal(b'{"schema": 2}') == {"schema": 2}


def test_tensors_are_written_from_where_they_are_and_shared_ones_each(tmp_path, monkeypatch):
    base, copied, clone = torch.arange(12.0).reshape(3, 4), [], torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda tensor: copied.append(tensor.shape) or clone(tensor))
    tensors = {"whole": base, "tied": base, "row": base[1], "turned": base.T, "own": torch.ones(2)}
    write_tensors(tmp_path / "tensors", tensors)
    assert {name: each.tolist() for name, each in load_file(tmp_path / "tensors").items()} == {
        name: each.tolist() for name, each in tensors.items()
    }
    assert copied == [(3, 4), (4,)]


def test_what_is_set_aside_is_the_same_and_leaves_nothing_in_the_folder(tmp_path):
    tensors = {"w": torch.randn(3, 5), "turned": torch.randn(4, 2).T, "ids": torch.arange(3)}
    aside = set_aside(tensors, tmp_path)
    assert all(torch.equal(aside[name], tensor) for name, tensor in tensors.items())
    assert aside["w"].data_ptr() != tensors["w"].data_ptr()
    assert list(tmp_path.iterdir()) == []
    assert set_aside(tensors, tmp_path / "gone") is tensors

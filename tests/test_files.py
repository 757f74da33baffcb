"""Files: hashes of tensors, publication by rename, names of unfinished things."""

import os

import pytest
import torch

from wisepatch.files import hash_tensors, publish, remove, write_durably


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

"""Pushing: what arrives on a hub is what the folder holds, and whatever a hub answers is one line with the next step."""

import pytest

from tests.loopback_hub import loopback_hub
from wisepatch.errors import UsageError
from wisepatch.models.hub import HubError, check_push, push

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the Hub's client itself


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with loopback_hub(monkeypatch, tmp_path / "cache") as hub:
        yield hub


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "README.md").write_text("---\ntags:\n- clip\n---\n# mine\n")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    return folder


def test_files_arrive_as_they_are_and_may_be_pushed_again(hub, folder):
    check_push("me/model")
    address = push(folder, "me/model", "first")
    assert address == f"{hub.address}/me/model"
    assert hub.repositories["me/model"] == {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "config.json").write_text('{"a": 1}')
    push(folder, "me/model", "second")
    assert hub.repositories["me/model"]["config.json"] == b'{"a": 1}'


FORBIDDEN = ("your token may not write for me (403)", "take one of me with the right to write")
TROUBLE = ("the Hub has trouble of its own (500)", "wait a while")
BROKEN_OFF = ("the connection to the Hub failed: ", "look at the network")


@pytest.mark.parametrize(
    ("where", "status", "reason", "step"),
    [
        ("/api/repos/create", 401, "the Hub does not know your token (401)", "hf auth login"),
        ("/api/repos/create", 403, *FORBIDDEN),
        ("/commit/", 403, *FORBIDDEN),
        (
            "/preupload/",
            404,
            "the Hub has no place for it, or your token may not see it (404)",
            "look at owner and name",
        ),
        ("/api/repos/create", 500, *TROUBLE),
        ("/lfs/", 500, *TROUBLE),
        ("/commit/", 418, "the Hub answers 418", "mend it"),
        ("/api/repos/create", 0, *BROKEN_OFF),
        ("/lfs/", 0, *BROKEN_OFF),
    ],
)
def test_each_refusal_is_one_line_with_the_next_step_and_the_folder_stays(hub, folder, where, status, reason, step):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.trouble = (where, status)
    with pytest.raises(HubError) as caught:
        push(folder, "me/model", "first")
    assert caught.value.message.startswith("me/model was not pushed: ")
    assert reason in caught.value.message
    assert step in caught.value.hint
    assert f"hf upload me/model {folder}" in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    hub.trouble = ("", None)
    push(folder, "me/model", "again")
    assert hub.repositories["me/model"] == before


def test_token_that_the_hub_does_not_know_and_no_hub_at_all(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_another_time")
    with pytest.raises(HubError, match="the Hub does not know your token") as caught:
        push(folder, "me/model", "first")
    assert caught.value.hint.startswith("run `hf auth login`")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"the connection to http://127.0.0.1:9 failed: .*refused"):
        push(folder, "me/model", "first")


def test_what_cannot_be_pushed_is_said_before_anything_is_written(hub, monkeypatch):
    for name, problem in (
        ("model", "names no owner"),
        ("a b/c", "names no repository"),
        ("a/b/c", "names no repository"),
    ):
        with pytest.raises(UsageError, match=problem) as caught:
            check_push(name)
        assert caught.value.hint == "write OWNER/NAME"
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(HubError, match="you are not logged in") as caught:
        check_push("me/model")
    assert "hf auth login" in caught.value.hint
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        check_push("me/model")
    assert hub.asked == []


def test_an_error_of_the_program_keeps_its_traceback(hub, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda *_, **__: {}["nothing"])
    with pytest.raises(KeyError):
        push(folder, "me/model", "first")

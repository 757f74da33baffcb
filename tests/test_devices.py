"""The device that a process computes on: chosen once, checked before any work, no part of what is stored."""

import json

import pytest
import torch
from accelerate import Accelerator

from tests.samples import fails
from tests.simulated import simulated_gpu
from wisepatch import EvalConfig, TrainConfig, use_device
from wisepatch.devices import available, computing_on, device, set_up_accelerate
from wisepatch.errors import UsageError


@pytest.fixture(autouse=True)
def none_chosen():
    yield
    use_device(None)


def test_a_gpu_is_the_default_where_there_is_one_and_another_device_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert device() == torch.device("cuda")
    for name in ("cpu", "cuda", "cuda:1"):
        use_device(name)
        assert device() == torch.device(name)
    assert current == [torch.device("cuda:1")]  # what is pinned is pinned for this one
    with pytest.raises(UsageError, match="there is no device 'cuda:2' here") as caught:
        use_device("cuda:2")
    assert caught.value.hint == "there is: cpu, cuda, cuda:0, cuda:1"
    use_device(None)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert device() == torch.device("cpu")


def test_each_of_several_processes_has_the_gpu_of_its_own_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert device() == torch.device("cuda:1")
    use_device("cuda")
    assert device() == torch.device("cuda:1")
    with pytest.raises(UsageError, match="2 processes cannot share the device cuda:0") as caught:
        use_device("cuda:0")
    assert "--device cuda" in caught.value.hint
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="2 processes on a machine need as many GPUs, and there are 1"):
        device()


def test_training_computes_on_the_same_device():
    use_device("cpu")
    with simulated_gpu():
        assert Accelerator(cpu=set_up_accelerate()).device == torch.device("cpu")
        use_device(None)
        assert Accelerator(cpu=set_up_accelerate()).device == torch.device("cuda")
    assert Accelerator(cpu=set_up_accelerate()).device == torch.device("cpu")


def test_a_device_is_chosen_for_a_while():
    with computing_on("cpu"), simulated_gpu():
        assert device() == torch.device("cpu")
    with computing_on(None), simulated_gpu():
        assert device() == torch.device("cuda")


COMPUTING = [
    ("demo",), ("patch", "--task", "Shapes"), ("finetune", "--task", "Shapes"), ("zeroshot",), ("interpolate",),
    ("eval", "zeroshot"), ("typo-attack", "eval", "zeroshot"),
]  # fmt: skip


@pytest.mark.parametrize("words", COMPUTING, ids=" ".join)
@pytest.mark.parametrize("name", ["cuda:7", "gpu", "tpu", ""])
def test_every_command_that_computes_refuses_a_device_that_there_is_not_before_any_work(cli, tmp_path, words, name):
    known = ", ".join(available())
    fails(cli(*words, f"--device={name}"), 2, f"error: there is no device {name!r} here", f"hint: there is: {known}")
    assert not (tmp_path / "wisepatch-store").exists()


def test_the_device_is_no_setting_that_is_stored(cli, shapes):
    """An identity of a checkpoint or of a cache entry holds no device."""
    assert not {"device", "processes"} & {*EvalConfig().to_json(), *TrainConfig.with_defaults("Shapes").to_json()}
    words = ("finetune", "--model", "demo", "--task", shapes, "--steps", 1, "--batch-size", 4, "--json")
    ids = [
        [json.loads(line)["id"] for line in cli(*words, "--store", store, *more).stdout.splitlines()]
        for store, more in (("one", ()), ("two", ("--device", "cpu")))
    ]
    assert ids[0] == ids[1]

"""What a launcher says of this process, and what is refused."""

import pytest

from wisepatch import ModelConfig, Store, TrainConfig, finetune, predict_many, ranks
from wisepatch.errors import UsageError

SET = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


def test_numbers_come_from_the_launcher_and_one_process_is_the_main_one(monkeypatch):
    for name in SET:
        monkeypatch.delenv(name, raising=False)
    assert (ranks.size(), ranks.rank(), ranks.local_rank(), ranks.local_size()) == (1, 0, 0, 1)
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    assert (ranks.size(), ranks.rank(), ranks.local_rank(), ranks.local_size()) == (4, 3, 1, 2)
    assert not ranks.is_main()


@pytest.mark.parametrize("name", ranks.SPLIT_MODELS)
def test_models_in_parts_are_refused_by_name_before_any_work(name, monkeypatch, tmp_path, cli):
    monkeypatch.setenv(name, "true")
    store = Store(tmp_path / "store")
    with pytest.raises(UsageError, match=f"{ranks.SPLIT_MODELS[name]} is not supported .{name} is set") as caught:
        finetune(TrainConfig.with_defaults("Shapes", steps=1), ModelConfig("demo", ""), store, tmp_path)
    assert "accelerate launch --multi_gpu" in caught.value.hint
    with pytest.raises(UsageError, match=name):
        next(predict_many([], [], store, tmp_path))
    result = cli("finetune", "--task", "no task")
    assert (result.exit_code, result.stderr.partition(" is set")[0].rpartition("(")[2]) == (2, name)
    assert not store.root.exists()


def test_several_processes_without_an_address_to_meet_at_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="WORLD_SIZE is 2, and RANK, MASTER_ADDR, MASTER_PORT not set") as caught:
        ranks.check_launcher()
    assert "unset WORLD_SIZE" in caught.value.hint

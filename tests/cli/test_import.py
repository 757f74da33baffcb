"""``wisepatch import``: what it prints, asks for and refuses."""

import json
import os

import pytest
import torch

from tests.samples import fails
from tests.tiny_clips import tiny_weights


def test_a_pair_of_the_papers_is_a_table_and_the_next_command(cli, papers):
    files = [papers / "wiseft-zeroshot.pt", papers / "wiseft-finetuned.pt"]
    fails(
        cli("import", *files), 2, "has a head of 10 classes and does not name them", "--task TASK, or --classnames FILE"
    )
    done = cli("import", *files, "--task", "CIFAR10", "--name", "birds")
    assert done.exit_code == 0, done.output
    assert "birds/zeroshot" in done.stdout
    assert "birds/finetuned" in done.stdout
    assert "note: there is no text tower" in done.stderr
    assert "next: wisepatch interpolate --checkpoint" in done.stderr
    records = [
        json.loads(line)
        for line in cli("import", *files, "--task", "CIFAR10", "--name", "birds", "--json").stdout.splitlines()
    ]
    assert [(each["type"], each["kind"], each["head"]["task"]) for each in records] == [
        ("checkpoint", "zeroshot", "CIFAR10"), ("checkpoint", "finetuned", "CIFAR10"),
    ]  # fmt: skip
    assert records[1]["config"]["imported"]["from"] == "wiseft-finetuned.pt"
    assert len(records[1]["config"]["imported"]["sha256"]) == 64
    shown = cli("store", "show", "birds/finetuned").stdout
    assert "imported: from" in shown
    assert "wiseft-zeroshot.pt, wiseft-finetuned.pt, --name, birds, --task, CIFAR10" in shown
    fails(
        cli("export", "birds/finetuned", "out"),
        1,
        "birds/finetuned has no text tower",
        "--parent CHECKPOINT or --model NAME",
    )


def test_what_cannot_be_seen_is_asked_for(cli, tmp_path, papers):
    fails(
        cli("import", papers / "clip-state-dict.pt"),
        2,
        "does not say whether it was trained with QuickGELU or GELU",
        "--activation gelu",
    )
    done = cli("import", papers / "clip-state-dict.pt", "--activation", "quickgelu")
    assert "no model of open_clip's has the shapes of" in done.stderr
    assert "next: wisepatch eval" in done.stderr
    fails(
        cli("import", papers / "clip-state-dict.pt", "--pretrained", "openai"),
        2,
        "--pretrained says which weights",
        "--model",
    )
    fails(
        cli("zeroshot", "--pretrained", papers / "clip-state-dict.pt", "--task", "Shapes"),
        2,
        "is a file, which does not say",
        "ViT-B-32-quickgelu",
    )
    (tmp_path / "names.txt").write_text("a\nb\n")
    head = papers / "patching-head_CIFAR10.pt"
    fails(
        cli("import", head, "--parent", "zeroshot", "--classnames", "names.txt"),
        2,
        "a head of 10 classes, and the list of names has 2",
        "head",
    )


def test_a_file_that_calls_is_refused_in_a_line(cli, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.system, ("touch ran",)

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pt")
    fails(
        cli("import", "bomb.pt"),
        1,
        f"bomb.pt cannot be read: it asks for {os.system.__module__}.system, and no code",
        "safetensors",
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_store_that_may_not_be_written_is_said(cli, tmp_path):
    torch.save(tiny_weights(), tmp_path / "w.pt")
    (tmp_path / "closed").mkdir(mode=0o500)
    fails(cli("import", "w.pt", "--activation", "gelu", "--store", "closed/store"), 1, "cannot be written", "")


def test_a_store_that_cannot_be_made_is_said(cli, tmp_path):
    torch.save(tiny_weights(), tmp_path / "w.pt")
    (tmp_path / "file").write_text("")
    fails(cli("import", "w.pt", "--activation", "gelu", "--store", "file/store"), 1, "cannot be written", "")


def test_help_shows_examples(cli):
    shown = cli("import", "--help").stdout
    for words in ("wisepatch import zeroshot.pt finetuned.pt --task ImageNet", "hf-hub:", "--parent", "--activation"):
        assert words in shown

"""``wisepatch eval``."""

import json

from wisepatch.datasets import demo


def test_eval_takes_many_checkpoints_and_metrics(cli, run_store):
    result = cli("eval", "zeroshot", "finetuned", "--metric", "top1,macro_f1", "--json")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {(row["task"], row["alpha"], row["metric"]) for row in rows} == {
        (task, alpha, metric) for task in ("shapes", "Colors") for alpha in (0, 1) for metric in ("top1", "macro_f1")
    }


def test_the_number_of_images_is_said_once(cli, run_store, shapes, monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 500, "val": 500, "test": 500})
    table = cli("eval", "zeroshot", "finetuned", "--task", "Colors,Shapes").stdout
    assert table.startswith("n = 500\n")
    assert table.count("500") == 1
    table = cli("eval", "zeroshot", "finetuned", "--task", f"Colors,{shapes}@all", "--metric", "top1").stdout
    assert table.startswith("n = 500 (Colors@test), 18 (shapes@all)\n")


def test_newest_checkpoints_of_different_runs_are_said_and_rows_of_one_name_show_ids(cli, run_store, shapes):
    words = ("--alpha", "0,0.5", "--eval", "Colors", "--select", "best-mean")
    cli("interpolate", *words)
    first = run_store.find("patched")
    together = cli("eval", "zeroshot", "finetuned", "patched", "--task", "Colors@val")
    assert "different runs" not in together.stderr
    cli("finetune", "--model", "demo", "--task", shapes, "--steps", "1", "--batch-size", "4")
    second = run_store.find("finetuned")
    result = cli("eval", "zeroshot", "finetuned", "patched", "--task", "Colors@val")
    assert f"({second.id}) and demo/shapes/patched ({first.id}) are of different runs; of one run: " in result.stderr
    assert f"wisepatch eval {' '.join(first.parents)} {first.id}" in result.stderr
    named = cli("eval", first.parents[1], second.id, first.id, "--task", "Colors@val")
    assert "different runs" not in named.stderr
    assert named.stdout.count("demo/shapes/finetuned (") == 2
    assert "demo/shapes/patched (" not in named.stdout


def test_one_checkpoint_is_no_plural(cli, run_store):
    assert "Colors (val), 1 checkpoint ..." in cli("eval", "zeroshot", "--task", "Colors@val").stderr
    assert (
        "Colors (val), 2 checkpoints ..."
        in cli("eval", "zeroshot", "finetuned", "--task", "Colors@val", "--again").stderr
    )

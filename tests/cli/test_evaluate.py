"""``wisepatch eval``."""

import json


def test_eval_takes_many_checkpoints_and_metrics(cli, run_store):
    result = cli("eval", "zeroshot", "finetuned", "--metric", "top1,macro_f1", "--json")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {(row["task"], row["alpha"], row["metric"]) for row in rows} == {
        (task, alpha, metric) for task in ("shapes", "Colors") for alpha in (0, 1) for metric in ("top1", "macro_f1")
    }

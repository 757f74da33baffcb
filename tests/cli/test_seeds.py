"""``--seeds`` of finetune and patch: a run a seed, mean and spread, a band in the picture."""

import json

import pandas as pd
from PIL import Image

from wisepatch.datasets import demo
from wisepatch.reports.plots import alpha_table
from wisepatch.store.results import read

TRAINING = ("--model", "demo", "--steps", "2", "--batch-size", "4", "--lr", "1e-2", "--warmup", "0", "--seeds", "0,1")


def test_patch_and_finetune_run_once_a_seed_and_show_mean_and_spread(cli, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 40, "val": 40, "test": 40})
    words = ("patch", "--task", shapes, "--supported", "Colors", "--alpha", "0,1", *TRAINING)
    told = cli(*words, "--output", "seeds.png")
    assert told.exit_code == 0, told.output
    assert "mean ± standard deviation over 2 seeds" in told.stdout
    assert "chosen on 2 seeds: shapes" in told.stdout
    assert told.stdout.count("note: alpha was chosen on few images") == 1
    with Image.open("seeds.png") as picture:
        assert picture.width > 500
    results = read(tmp_path / "wisepatch-store" / "results.jsonl")[0]
    table = alpha_table(results)
    assert table.attrs["seeds"] == 2
    ends = results[(results["alpha"] == 1) & (results["task"] == "Colors") & (results["split"] == "test")]["value"]
    (band,) = table[(table["alpha"] == 1) & (table["task"] == "Colors")].to_dict("records")
    assert (band["ci_low"], band["value"], band["ci_high"]) == (ends.min(), ends.mean(), ends.max())
    records = [json.loads(line) for line in cli(*words, "--json").stdout.splitlines()]
    assert [each["type"] for each in records if each["type"] != "result"][:2] == ["choice", "choice"]
    summary = pd.DataFrame([each for each in records if each["type"] == "seeds"])
    assert set(summary["seeds"]) == {2}
    trained = cli("finetune", "--task", shapes, "--supported", "Colors", *TRAINING)  # finished already
    assert trained.exit_code == 0, trained.output
    assert "standard deviation" in trained.stdout
    again = trained.stderr.splitlines()[-1].removeprefix("next: wisepatch ").split()
    measured = cli(*again)
    assert measured.exit_code == 0, measured.output
    assert "mean ± standard deviation over 2 seeds" in measured.stdout
    refused = cli("finetune", "--task", shapes, *TRAINING[:-1], "0,0")
    assert (refused.exit_code, "are not several different numbers" in refused.stderr) == (2, True)

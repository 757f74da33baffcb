"""``wisepatch store``: list, verify, rm, gc."""

import json
import shutil

import pytest

from tests.samples import fails
from wisepatch import Store, sweep
from wisepatch.datasets import demo
from wisepatch.store.runs import Run


def test_damaged_weights_are_an_error(cli, run_store):
    weights = run_store.checkpoints / run_store.find("finetuned").id / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    result = cli("eval", "finetuned", "--task", "Colors")
    assert result.exit_code == 1
    assert "is damaged: model.safetensors" in result.stderr
    verified = cli("store", "verify")
    assert verified.exit_code == 1
    assert "1 of 2 checkpoints is damaged" in verified.stderr


def test_store_commands(cli, run_store):
    listed = [json.loads(line) for line in cli("store", "list", "--json").stdout.splitlines()]
    assert [c["kind"] for c in listed] == ["zeroshot", "finetuned"]
    assert cli("store", "verify").exit_code == 0
    cli("interpolate", "--alpha", "0.5", "--eval", "Colors")
    refused = cli("store", "rm", "finetuned")
    fails(refused, 1, "1 recipe is mixed from", "--recipes")
    gone = cli("store", "rm", "finetuned", "--recipes")
    assert gone.stdout.count("removed") == 2
    (run_store.checkpoints / ".wisepatch-partial-0123abcd").mkdir()
    assert "removed 3 files and folders" in cli("store", "gc").stdout  # and the predictions of two


def test_damaged_manifest_is_reported_and_the_rest_goes_on(cli, run_store):
    (run_store.checkpoints / run_store.find("finetuned").id / "manifest.json").write_text("{")
    assert cli("store", "list").exit_code == 0
    assert cli("eval", "zeroshot", "--task", "Colors").exit_code == 0
    verified = cli("store", "verify")
    assert verified.exit_code == 1
    assert "manifest.json is not a manifest of this version" in verified.stderr
    (run_store.checkpoints / "stray").write_text("")
    assert cli("store", "gc").exit_code == 0


def test_several_checkpoints_are_removed_by_one_command_or_none(cli, run_store):
    cli("interpolate", "--alpha", "0.5", "--eval", "Colors", "--select", "best-mean")
    fails(cli("store", "rm", "zeroshot", "--recipes"), 1, "was trained from", "or name both")
    fails(cli("store", "rm", "finetuned", "nonesuch", "--recipes"), 2, "unknown checkpoint 'nonesuch'")
    assert len(run_store.everything()) == 4
    gone = cli("store", "rm", "finetuned", "patched", "zeroshot", "--recipes")
    assert (gone.exit_code, gone.stdout.count("removed")) == (0, 4)
    assert run_store.everything() == []


def test_one_flipped_bit_in_a_cached_head_changes_nothing_and_is_named(cli, run_store):
    before = cli("eval", "zeroshot", "--task", "Colors", "--json").stdout.splitlines()
    for path in (run_store.root / "cache" / "heads").glob("*/tensors.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 64
        path.write_bytes(content)
    verified = cli("store", "verify")
    assert verified.exit_code == 1
    assert "error: damage beside the checkpoints in 2 places: the cache entry " in verified.stderr
    again = cli("eval", "zeroshot", "--task", "Colors", "--again")
    assert [json.loads(line)["value"] for line in before] == [
        json.loads(line)["value"] for line in cli("eval", "zeroshot", "--task", "Colors", "--json").stdout.splitlines()
    ]
    assert again.exit_code == 0
    assert "it is made again" in again.stderr


def test_a_flipped_bit_in_the_record_of_a_training_is_named(cli, run_store):
    run = Run(run_store.root, {"config": {"task": "Shapes"}}, "fingerprint of the images")
    run.folder.parent.mkdir(exist_ok=True)
    run.begin()
    assert cli("store", "verify").exit_code == 0
    (run.folder / "run.json").write_bytes((run.folder / "run.json").read_bytes().replace(b"Shapes", b"Shades"))
    verified = cli("store", "verify")
    assert verified.exit_code == 1
    assert "error: damage beside the checkpoints in 1 place: the record of a training" in verified.stderr


def test_store_that_is_not_there_is_not_called_whole(cli):
    fails(cli("store", "verify", "--store", "nowhere"), 1, "there is no store at nowhere", "--store")


def test_what_verify_finds_can_be_removed_as_its_hint_says(cli, run_store):
    start, end = run_store.look_up("zeroshot"), run_store.look_up("finetuned")
    (start.home / "manifest.json").write_text('{"created": null}')
    verified = cli("store", "verify")
    assert start.id in verified.stdout
    assert "`wisepatch store rm` and its id" in verified.stderr
    assert cli("store", "list").exit_code == 0
    assert cli("store", "rm", start.id).stdout == f"removed damaged ({start.id})\n"
    assert not start.home.exists()
    assert f"was trained from {start.id}, which is not in the store" in cli("store", "verify").stderr
    weights = end.home / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert cli("store", "rm", end.id).exit_code == 0
    assert cli("store", "verify").exit_code == 0


def test_results_that_cannot_be_kept_are_printed_before_the_error(cli, run_store):
    run_store.results.unlink(missing_ok=True)
    run_store.results.mkdir()
    for more in ((), ("--json",)):
        result = cli("eval", "finetuned", "--task", "Colors", *more)
        assert result.exit_code == 1
        assert "error: the results wisepatch-store/results.jsonl cannot be written: Is a directory" in result.stderr
        assert "1 result that was measured stands above" in result.stderr
        row, *errors = [json.loads(line) for line in result.stdout.splitlines()]
        assert (row["task"], row["metric"]) == ("Colors", "top1")
        assert len(errors) == len(more)
    swept = cli("interpolate", "--alpha", "0,1", "--eval", "Colors", "--select", "best-mean")
    rows = [json.loads(line) for line in swept.stdout.splitlines()]
    assert {(row["alpha"], row["split"]) for row in rows} == {(0, "val"), (1, "val")}


def test_predictions_that_cannot_be_kept_lose_no_results(cli, run_store):
    run_store.predictions.write_text("in the way")
    result = cli("eval", "finetuned", "--task", "Colors")
    assert result.exit_code == 1
    assert [json.loads(line)["task"] for line in result.stdout.splitlines()] == ["Colors"]


@pytest.fixture(scope="module")
def sweep_with_name(finished, tmp_path_factory):
    """A store with a sweep that has a name and chose an alpha; copy it before writing."""
    root = tmp_path_factory.mktemp("swept")
    shutil.copytree(finished[0] / "store", root / "wisepatch-store")
    with pytest.MonkeyPatch.context() as small:
        small.setattr(demo, "SIZES", {"train": 10, "val": 10, "test": 10})
        sweep(
            Store(root / "wisepatch-store"),
            root,
            tasks="Colors",
            alphas="0:1:0.25",
            rule="best-mean",
            run_name="first try",
        )
    return root / "wisepatch-store"


@pytest.fixture
def swept(sweep_with_name, tmp_path):
    return Store(shutil.copytree(sweep_with_name, tmp_path / "wisepatch-store"))


def test_the_listing_is_by_run_and_its_mixes_share_a_line(cli, swept):
    listed = cli("store", "list").stdout
    lines = [line for line in listed.splitlines() if line.startswith("│")]
    assert [sum(word in line for line in lines) for word in ("finetuned", "3 mixes", "0.25 to 0.75", "patched")] == [
        1,
        1,
        1,
        1,
    ]
    assert listed.count("first try") == 3  # of the fine-tuned one, the mixes and the patched one
    assert len(lines) == 4
    assert cli("store", "list", "--all").stdout.count("alpha=0.") == 3
    assert len(cli("store", "list", "--json").stdout.splitlines()) == 6


def test_ids_stay_whole_in_a_terminal_of_80_columns(cli, swept, capsys, monkeypatch):
    monkeypatch.setattr("wisepatch.cli.output.Output.width", 80)
    listed = cli("store", "list").stdout
    for checkpoint in (swept.find("finetuned"), swept.find("patched")):
        assert checkpoint.id in listed
    assert max(map(len, listed.splitlines())) <= 80
    assert "first try" in listed
    monkeypatch.setattr("wisepatch.cli.output.Output.width", 60)
    assert "first try" not in cli("store", "list").stdout


def test_show_tells_settings_seed_lineage_and_recipe(cli, swept):
    patched, finetuned = swept.find("patched"), swept.find("finetuned")
    shown = " ".join(cli("store", "show", "patched").stdout.split())
    for part in (patched.id, finetuned.id, "best-mean", "alpha", "seed", "lr", "0.01", "first try", "paint", "Colors"):
        assert part in shown
    (record,) = map(json.loads, cli("store", "show", "patched", "--json").stdout.splitlines())
    assert record["id"] == patched.id
    finetuned.home.rename(swept.root / "gone")
    assert f"{finetuned.id} (removed)" in cli("store", "show", "patched").stdout
    fails(cli("store", "show", "nonesuch"), 2, "unknown checkpoint 'nonesuch'")


def test_diff_tells_in_what_two_checkpoints_differ(cli, swept):
    result = cli("store", "diff", "finetuned", "patched")
    assert result.exit_code == 0, result.output
    for field in ("kind", "made from", "recipe: alpha", "select"):
        assert field in result.stdout
    assert "seed" not in result.stdout
    assert "other fields the same" in result.stdout
    same = cli("store", "diff", "patched", "patched")
    assert same.stdout.endswith("other fields the same\n")
    records = [json.loads(line) for line in cli("store", "diff", "finetuned", "patched", "--json").stdout.splitlines()]
    assert {"kind": ("finetuned", "patched")}.items() <= {
        r["field"]: (r["first"], r["second"]) for r in records
    }.items()


def test_plot_takes_the_name_of_a_run(cli, swept):
    assert "drew 5 points of 1 run" in cli("plot", "--run", "first try").stdout
    assert "drew 2 tasks at 5 alphas" in cli("plot", "--run", "first try", "--over-alpha").stdout
    fails(cli("plot", "--run", "second try"), 1, "there is no run 'second try'", "first try")

"""`wisepatch merge`: tables, records, what is stored, and what is refused."""

import json

import pytest

from tests.samples import fails
from wisepatch import Store, load_weights
from wisepatch.store.checkpoints import Checkpoint


@pytest.fixture
def ends(run_store) -> list[Checkpoint]:
    """Two ends of one start."""
    end = run_store.find("finetuned")
    weights = {n: t * 1.02 if n.startswith("visual.") else t for n, t in load_weights(run_store, end).items()}
    other = run_store.save(
        weights, kind="finetuned", name="other", model=end.model, training=end.training, config=end.config,
        trained_from=end.trained_from,
    )  # fmt: skip
    return [end, other]


def test_candidates_are_a_table_and_the_chosen_one_is_stored_by_name(cli, ends, run_store):
    words = [end.id for end in ends]
    done = cli(
        "merge", *words, "--method", "task-arithmetic", "--param", "alpha=0,0.5", "--eval", "Colors", "--limit", "6",
        "--select", "best-mean", "--name", "mine", "--space", "output",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "task-arithmetic: top1 in per cent, val split (chosen on this split)" in done.stdout
    assert "task-arithmetic: top1 in per cent, test split (chosen on val)" in done.stdout
    for cell in ("start", "end", "no checkpoint", "chosen", "patched", "supported", "output-probabilities"):
        assert cell in done.stdout
    assert "no checkpoint comes of them" in done.stdout
    if "start, chosen" in done.stdout:
        assert (
            "chosen: the start, demo/zeroshot, by best-mean on validation data; no candidate is better" in done.stderr
        )
    else:
        assert run_store.find("mine").kind == "merged"
    assert "next: wisepatch export" in done.stderr


def test_each_method_is_a_group_of_the_listing_with_the_name_of_its_own_run(cli, ends):
    words = ("merge", *(end.id for end in ends), "--eval", "Colors", "--limit", "6")
    assert cli(*words, "--method", "task-arithmetic", "--param", "alpha=0.5,1", "--name", "sums").exit_code == 0
    assert cli(*words, "--method", "slerp", "--name", "arc").exit_code == 0
    listed = cli("store", "list").stdout.splitlines()
    groups = [[cell.strip() for cell in line.strip("│").split("│")] for line in listed if line.startswith("│")]
    named = {row[0].rpartition("/")[2]: row[3] for row in groups if row[3]}
    assert named == {"task-arithmetic: 2 mixes": "sums", "arc": "arc"}
    assert [row[3] for row in groups if row[0] == "other"] == [""]


def test_a_merge_that_was_just_made_is_drawn_on_the_data_of_its_choice(cli, ends, tmp_path):
    words = (
        "merge",
        *(end.id for end in ends),
        "--method",
        "task-arithmetic",
        "--param",
        "alpha=0.5,1",
        "--limit",
        "6",
    )
    assert cli(*words, "--eval", "Colors", "--select", "best-mean", "--name", "sums").exit_code == 0
    drawn = cli("plot")
    assert "of the merge sums to plot.png" in drawn.stdout
    assert drawn.stdout.count("chosen") == 1
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    points = [json.loads(line) for line in cli("plot", "--json").stdout.splitlines()]
    assert {"start", "end", "merge"} == {point["kind"] for point in points}
    assert {point["split"] for point in points} == {"val"}
    assert cli(*words, "--eval", "Colors").exit_code == 0
    tested = [json.loads(line) for line in cli("plot", "--json").stdout.splitlines()]
    assert {point["split"] for point in tested} == {"test"}
    assert not any(point["chosen"] for point in tested)
    fails(cli("plot", "--supported", "Colors"), 2, "axes of its own, and --supported cannot be given", "leave it out")
    fails(cli("plot", "--split", "train"), 1, "no merge with supported tasks on the 'train' split", "--eval")


def test_a_task_on_another_split_is_named_with_it(cli, ends):
    done = cli("merge", *(end.id for end in ends), "--eval", "Colors@val", "--limit", "6")
    assert "Colors@val" in done.stdout


def test_a_costly_merge_says_how_its_weights_are_kept(cli, ends, run_store):
    words = ("merge", *(end.id for end in ends), "--method", "tsv-m", "--no-eval", "--name", "costly")
    assert "--materialize stores its weights" in cli(*words).stderr
    assert "recipe" not in cli(*words, "--materialize").stderr
    assert run_store.find("costly").files


def test_programs_get_rows_and_the_choice(cli, ends):
    words = [end.id for end in ends]
    done = cli(
        "merge",
        *words,
        "--param",
        "weights=1/1,1/3",
        "--eval",
        "Colors",
        "--limit",
        "6",
        "--select",
        "best-mean",
        "--json",
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    (choice,) = [each for each in records if each["type"] == "choice"]
    assert choice["method"] == "linear"
    assert choice["params"] in ({"weights": [1, 1]}, {"weights": [1, 3]}, {})
    rows = [each for each in records if each["type"] == "result"]
    assert {row["split"] for row in rows} == {"val", "test"}
    assert {json.dumps(row["params"]) for row in rows if row["candidate"]} == {
        '{"weights": [1.0, 1.0]}',
        '{"weights": [1.0, 3.0]}',
    }


def test_a_merge_can_be_stored_without_measurements_and_exported(cli, ends, tmp_path):
    done = cli("merge", *(end.id for end in ends), "--method", "ties", "--no-eval", "--name", "by ties")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "saved as by ties" in done.stderr
    assert cli("export", "by ties", "exported").exit_code == 0
    assert (tmp_path / "exported" / "open_clip_config.json").is_file()
    shown = cli("store", "show", "merged").stdout
    assert "ties" in shown
    assert cli("store", "verify").exit_code == 0
    assert cli("store", "rm", "merged").exit_code == 0
    assert not [each for each in Store("wisepatch-store").everything() if each.kind == "merged"]


def test_a_soup_says_what_is_in_it(cli, ends):
    done = cli("merge", *(end.id for end in ends), "--method", "greedy-soup", "--eval", "Colors", "--limit", "6")
    assert done.exit_code == 0, done.output
    assert "in the soup: " in done.stderr
    assert "soup of " in done.stdout


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (("--method", "gredy-soup"), "unknown merge method 'gredy-soup'; did you mean greedy-soup?", 2),
        (("--method", "tise"), "unknown merge method 'tise'", 2),
        (("--method", "ties", "--param", "density=2"), "ties cannot have density 2.0, which is not from 0 to 1", 2),
        (
            ("--method", "greedy-soup", "--param", "alpha=1"),
            "a greedy soup chooses by validation data itself, and takes no --param",
            2,
        ),
        (("--method", "ties", "--layers", "fast"), "--layers 'fast' is not understood", 2),
    ],
)
def test_mistakes_are_one_line_and_a_next_step(cli, ends, words, message, code):
    done = cli("merge", *(end.id for end in ends), *words)
    assert done.exit_code == code
    assert done.stderr.startswith(f"error: {message}")
    assert "hint: " in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_sweep_over_alpha_names_the_command_for_other_methods(cli, run_store):
    done = cli("interpolate", "--method", "tsv-m")
    assert done.exit_code == 2
    assert "hint: use `wisepatch merge --method tsv-m`" in done.stderr

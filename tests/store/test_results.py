"""Measurements on disk: appended whole, read back whole."""

import json
import resource
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest

from wisepatch.errors import ResultsError, StoreError
from wisepatch.files import unseal
from wisepatch.store import results
from wisepatch.store.result_rows import COLUMNS, EXTRA
from wisepatch.store.results import RowsNotKeptError, append, pick_runs, read, read_runs, showing
from wisepatch.store.wide_records import to_wide

DATA = Path(__file__).parents[1] / "data"


def row(**fields):
    measured = {
        "run": "r1",
        "checkpoint": "abc",
        "model": "demo",
        "pretrained": "",
        "training": "paint",
        "method": "linear",
        "alpha": 0.5,
        "params": {},
        "task": "Shapes",
        "split": "test",
        "metric": "top1",
        "value": 0.75,
        "n": 100,
        "ci_low": 0.66,
        "ci_high": 0.82,
        "seed": 0,
    }
    return measured | fields


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store" / "results.jsonl"


def test_what_is_appended_reads_back(path):
    append(path, [row(), row(alpha=1.0, task="typo:Käfer", value=0.5)])
    append(path, [row(alpha=0.0, value=0.25)])
    frame, problems = read(path)
    assert problems == []
    assert list(frame["alpha"]) == [0.5, 1.0, 0.0]
    assert list(frame["value"]) == [0.75, 0.5, 0.25]
    assert list(frame["task"]) == ["Shapes", "typo:Käfer", "Shapes"]
    assert set(frame.columns) >= {*COLUMNS, *EXTRA}


@pytest.mark.parametrize(
    ("method", "training", "merge"),
    [
        ("paint", "paint", "linear"), ("wiseft", "wise-ft", "linear"), ("linear", "linear-probe", "linear"),
        ("zeroshot", "zeroshot", "linear"), ("fisher", None, "fisher"), (None, None, None),
    ],
)  # fmt: skip
def test_the_method_of_older_rows_was_the_training(path, method, training, merge):
    path.parent.mkdir()
    older = {key: value for key, value in row(method=method).items() if key not in ("training", "params")}
    path.write_text(json.dumps(older) + "\n")
    append(path, [row(training="wise-ft", method="ties", params={"density": 0.2}), row(training=None, method="linear")])
    frame, problems = read(path)
    assert problems == []
    assert [None if pd.isna(each) else each for each in frame["training"]] == [training, "wise-ft", None]
    assert [None if pd.isna(each) else each for each in frame["method"]] == [merge, "ties", "linear"]
    assert frame["params"][1] == {"density": 0.2}


def test_rows_are_stamped_and_complete_and_come_back_as_written(path):
    written = append(path, [{"task": "Shapes", "metric": "top1", "value": 0.5, "role": "patching"}])
    assert [unseal(line) for line in path.read_bytes().splitlines()] == written
    assert set(written[0]) == {*COLUMNS, "role"}
    assert written[0]["alpha"] is None
    assert written[0]["version"] == version("wisepatch")
    assert datetime.fromisoformat(written[0]["time"]).tzinfo is not None


def test_a_result_that_was_changed_is_named_and_left_out(path, cli):
    append(path, [row(alpha=alpha) for alpha in (0, 0.5, 1)])
    whole = path.read_bytes()
    assert cli("store", "verify", "--store", path.parent).exit_code == 0
    path.write_bytes(whole.replace(b"\n", b"\r\n"))
    assert read(path)[1] == []
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1].replace(b'"value": 0.75', b'"value": 0.95'), lines[2]]))
    frame, (problem,) = read(path)
    assert list(frame["alpha"]) == [0, 1]
    assert (
        "line 2 is not a result and was left out: it is damaged: it does not have the sha256 that it names" in problem
    )
    verified = cli("store", "verify", "--store", path.parent)
    assert verified.exit_code == 1
    assert "error: damage beside the checkpoints in 1 place: " in verified.stderr
    assert "results.jsonl, line 2 is not a result" in verified.stderr


def test_no_flipped_bit_changes_a_result(path):
    (written,) = append(path, [row()])
    whole = path.read_bytes()
    for bit in range(0, 8 * (len(whole) - 1), 7):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped + whole)
        frame, problems = read(path)
        assert problems or frame[list(written)].iloc[0].equals(frame[list(written)].iloc[1]), flipped


def test_appending_leaves_earlier_bytes_alone(path):
    append(path, [row()])
    before = path.read_bytes()
    append(path, [row(value=0.1)])
    assert path.read_bytes().startswith(before)
    assert path.read_bytes().count(b"\n") == 2


def test_several_processes_lose_no_row(path):
    code = (
        "import sys; from pathlib import Path; from wisepatch.store.results import append\n"
        "for i in range(15):\n"
        "    append(Path(sys.argv[1]), [{'run': sys.argv[2], 'task': 'x' * 3000, 'metric': 'top1', 'value': i}] * 2)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(number)]) for number in range(4)]
    assert [writer.wait(300) for writer in writers] == [0] * 4
    frame, problems = read(path)
    assert problems == []
    assert len(frame) == 4 * 15 * 2
    for _, rows in frame.groupby("run"):
        assert list(rows["value"]) == [i for i in range(15) for _ in range(2)]


@pytest.mark.parametrize(
    "broken",
    [
        '{"run": "r1", "metric": "to',
        "not json",
        "[1, 2]",
        '["metric", "value"]',
        '"a metric and its value"',
        "17",
        "null",
        '{"alpha": 0.5}',
    ],
)
def test_a_broken_line_is_named_by_its_number_and_the_rest_is_read(path, broken):
    append(path, [row(value=0.1)])
    with path.open("a") as file:
        file.write(f"{broken}\n\n")
    append(path, [row(value=0.2)])
    frame, problems = read(path)
    assert list(frame["value"]) == [0.1, 0.2]
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}, line 2 is not a result and was left out: ")


def test_bytes_that_are_no_text_cost_their_line_only(path):
    append(path, [row(value=0.1)])
    with path.open("ab") as file:
        file.write(b"\x80\xff\x00\n")
    append(path, [row(value=0.2)])
    frame, problems = read(path)
    assert list(frame["value"]) == [0.1, 0.2]
    assert problems[0].startswith(f"{path}, line 2 ")


@pytest.mark.parametrize("keep", [1, 10, -1])
def test_a_last_line_that_was_cut_short_spoils_nothing_that_follows(path, keep):
    append(path, [row(value=0.1)])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-1][:keep])
    append(path, [row(value=0.2)])
    frame, problems = read(path)
    assert list(frame["value"]) == [0.1, 0.2]
    assert [problem.startswith(f"{path}, line 2 ") for problem in problems] == [True]


def test_a_last_line_that_lacks_only_its_newline_is_kept(path):
    append(path, [row(value=0.1)])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append(path, [row(value=0.2)])
    frame, problems = read(path)
    assert (list(frame["value"]), problems) == ([0.1, 0.2], [])


@pytest.mark.parametrize(
    ("name", "alphas", "tasks"),
    [
        ("paint-vitb32-mnist", 101, ["CIFAR10", "MNIST"]),
        (
            "wiseft-vitb16-imagenet",
            21,
            ["ImageNet", "ImageNetA", "ImageNetR", "ImageNetSketch", "ImageNetV2", "ObjectNet"],
        ),
    ],
)
def test_the_papers_records_are_read(name, alphas, tasks):
    frame, problems = read(DATA / f"{name}.jsonl")
    assert problems == []
    assert len(frame) == alphas * len(tasks)
    assert sorted(frame["task"].unique()) == tasks
    assert frame["alpha"].nunique() == alphas
    assert set(frame["metric"]) == {"top1"}
    assert set(frame["run"]) == {name}
    assert set(frame["split"]) == {"test"}


def test_the_papers_records_keep_their_values_and_roles():
    frame, _ = read(DATA / "wiseft-vitb16-imagenet.jsonl")
    zero_shot = frame[frame["alpha"] == 0].set_index("task")
    assert zero_shot["value"].to_dict() == {
        "ImageNet": 0.683,
        "ImageNetV2": 0.619,
        "ImageNetR": 0.776,
        "ImageNetSketch": 0.482,
        "ObjectNet": 0.53,
        "ImageNetA": 0.498,
    }
    assert zero_shot["role"].to_dict() == {
        task: "patching" if task == "ImageNet" else "supported" for task in zero_shot.index
    }
    assert set(frame["patching"]) == {"ImageNet"}
    assert set(frame["model"]) == {"ViT-B/16"}


@pytest.mark.parametrize("name", ["paint-vitb32-mnist", "wiseft-vitb16-imagenet"])
def test_the_papers_records_are_written_as_they_were_read(name):
    path = DATA / f"{name}.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    written = to_wide(read(path)[0].to_dict("records"))
    assert [{key: record[key] for key in records[0]} for record in written] == records


def test_a_wide_record_without_a_training_task_has_no_roles(tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_text('{"alpha": 0.5, "typo:Shapes:top1": 0.8, "note": "a:b"}\n')
    frame, problems = read(path)
    assert problems == []
    assert frame[["task", "metric", "value"]].to_dict("records") == [
        {"task": "typo:Shapes", "metric": "top1", "value": 0.8}
    ]
    assert frame["role"].isna().all()
    assert frame["patching"].isna().all()


def test_wide_records_gather_tasks_and_keep_alphas_and_splits_apart():
    rows = [
        row(alpha=1.0, task="B", value=0.4, patching="A"),
        row(alpha=0.0, task="A", value=0.1, patching="A"),
        row(alpha=0.0, task="B", value=0.2, patching="A"),
        row(alpha=0.0, task="A", value=0.3, patching="A", split="val"),
    ]
    assert to_wide(rows) == [
        {"model": "demo", "train_dataset": "A", "alpha": 0.0, "split": "test", "A:top1": 0.1, "B:top1": 0.2},
        {"model": "demo", "train_dataset": "A", "alpha": 0.0, "split": "val", "A:top1": 0.3},
        {"model": "demo", "train_dataset": "A", "alpha": 1.0, "split": "test", "B:top1": 0.4},
    ]


def test_wide_records_without_an_alpha_come_last():
    rows = [row(alpha=None, value=0.1, checkpoint="a"), row(alpha=0.0, value=0.2, checkpoint="b")]
    assert [record["Shapes:top1"] for record in to_wide(rows)] == [0.2, 0.1]


def test_wide_records_keep_their_split_when_they_are_read_again(tmp_path):
    path = tmp_path / "wide.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in to_wide([row(split="val"), row(split="test")])))
    assert sorted(read(path)[0]["split"]) == ["test", "val"]


def test_tidy_and_wide_records_may_share_a_file(path):
    append(path, [row(value=0.1)])
    with path.open("a") as file:
        file.write('{"alpha": 0.5, "Shapes:top1": 0.2}\n')
    frame, problems = read(path)
    assert (list(frame["value"]), problems) == ([0.1, 0.2], [])


def test_several_files_are_one_table_with_all_problems(path, tmp_path):
    append(path, [row(value=0.1)])
    other = tmp_path / "other.jsonl"
    other.write_text('oops\n{"alpha": 0.5, "Shapes:top1": 0.2}\n')
    frame, problems = read(path, other, DATA / "paint-vitb32-mnist.jsonl")
    assert list(frame["value"][:2]) == [0.1, 0.2]
    assert len(frame) == 2 + 202
    assert list(frame.index) == list(range(204))
    assert len(problems) == 1
    assert problems[0].startswith(f"{other}, line 1 ")


def test_a_missing_file_is_an_error_that_names_it(path):
    with pytest.raises(ResultsError) as caught:
        read(path)
    assert caught.value.message == f"there are no results at {path}: No such file or directory"
    assert caught.value.hint == "run `wisepatch interpolate` or `wisepatch patch` first, or name a file of results"


def test_a_folder_is_no_file_of_results(tmp_path):
    with pytest.raises(ResultsError) as caught:
        read(tmp_path)
    assert caught.value.message == f"there are no results at {tmp_path}: Is a directory"


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_an_error(tmp_path, text):
    path = tmp_path / "empty.jsonl"
    path.write_text(text)
    with pytest.raises(ResultsError) as caught:
        read(path)
    assert (caught.value.message, caught.value.hint) == (f"{path} holds no results", "the file is empty")


def test_a_file_of_something_else_is_an_error_that_names_the_first_line(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_text("roses\nviolets\n")
    with pytest.raises(ResultsError) as caught:
        read(path)
    assert caught.value.message == f"{path} holds no results"
    assert caught.value.hint.startswith(f"{path}, line 1 is not a result and was left out: ")


def test_a_place_that_cannot_be_written_is_an_error_that_names_another(tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "store" / "results.jsonl"
    with pytest.raises(StoreError) as caught:
        append(path, [row()])
    assert caught.value.message == f"the results {path} cannot be written: Not a directory"
    assert caught.value.hint == "name another folder with --store or WISEPATCH_STORE"


def test_a_folder_in_the_place_of_the_results_is_an_error(tmp_path):
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(StoreError, match=r"results\.jsonl cannot be written: Is a directory"):
        append(tmp_path / "results.jsonl", [row()])


@pytest.fixture
def runs():
    rows = [
        {"run": "sweep1", "alpha": 0.5, "patching": "A", "value": 1},
        {"run": "sweep2", "alpha": 0.0, "patching": "A", "value": 2},
        {"run": "sweep2", "alpha": 1.0, "patching": "A", "value": 3},
        {"run": "eval", "alpha": 1.0, "patching": None, "value": 4},
        {"run": "odd", "alpha": None, "patching": "A", "value": 5},
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("names", "values"),
    [
        ([], [1, 2, 3, 4, 5]),
        (["all"], [1, 2, 3, 4, 5]),
        (["eval", "all"], [1, 2, 3, 4, 5]),
        (["sweep1"], [1]),
        (["sweep1", "eval"], [1, 4]),
        (["newest"], [2, 3]),
        (["newest", "eval"], [2, 3, 4]),
    ],
)
def test_runs_are_picked_by_name_all_or_the_newest_that_swept_alpha(runs, names, values):
    assert list(pick_runs(runs, names)["value"]) == values


def test_a_run_that_is_not_there_lists_those_that_are(runs):
    with pytest.raises(ResultsError) as caught:
        pick_runs(runs, ["sweep1", "swep2"])
    assert caught.value.message == "there is no run 'swep2'"
    assert caught.value.hint == "runs there are: sweep1, sweep2, eval, odd"


def test_the_newest_sweep_needs_a_sweep(runs):
    with pytest.raises(ResultsError) as caught:
        pick_runs(runs[runs["run"].isin(["eval", "odd"])], ["newest"])
    assert caught.value.message == "no run in these results swept alpha"
    assert caught.value.hint == "run `wisepatch interpolate` or `wisepatch patch` first"


@pytest.mark.parametrize(
    "odd",
    [
        {"task": "\ud800"}, {"task": None}, {"task": 5}, {"metric": ["top1"]}, {"metric": {}}, {"run": 1.5},
        {"split": "\udfff"}, {"alpha": "0.5"},
        {"alpha": 10**400}, {"value": -(10**400)}, {"value": True}, {"n": [1]}, {"ci_low": float("inf")}, {"params": []},
        {"chosen": "yes"},
        {"role": {"a": 1}}, {"model": "x" * 20_000}, {"patching": 1},
        {"more": "\ud800"}, {"\ud800": 1},
    ],
)  # fmt: skip
def test_fields_that_nobody_wrote_leave_their_line_out(path, odd):
    append(path, [row()])
    with path.open("a") as file:
        file.write(json.dumps(row(alpha=1.0) | odd) + "\n")
    frame, problems = read(path)
    assert len(frame) == 1
    (problem,) = problems
    assert f"line 2 is not a result and was left out: its {next(iter(odd))}" in problem


def test_rows_that_cannot_be_kept_are_in_the_error(tmp_path):
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(RowsNotKeptError) as caught:
        append(tmp_path / "results.jsonl", [row(value=0.1), row(value=0.2)])
    assert [each["value"] for each in caught.value.rows] == [0.1, 0.2]
    assert caught.value.__notes__ == ["2 results that were measured stand above, and are kept nowhere"]
    with pytest.raises(RowsNotKeptError) as again, showing([row(value=0.3)]):
        raise caught.value
    assert [each["value"] for each in again.value.rows] == [0.1, 0.2, 0.3]


def test_a_disk_that_fills_up_leaves_all_rows_of_a_batch_or_none(path):
    append(path, [row(value=0.1)])
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(RowsNotKeptError, match="cannot be written: File too large"):
            append(path, [row(value=0.2), row(value=0.3)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    append(path, [row(value=0.4)])
    assert list(read(path)[0]["value"]) == [0.1, 0.4]


@pytest.fixture
def shared(path):
    """The rows of several runs, in part at the same time."""
    append(path, [row(run="sweep1", patching="A"), row(run="eval", alpha=1.0)])
    append(path, [row(run="sweep2", patching="A", value=0.1)])
    append(
        path,
        [
            row(run='eval \u00e4"\\', note="sweep1"),
            row(run="odd", patching="A", alpha=None),
            row(run="null", patching=None),
        ],
    )
    append(path, [row(run="sweep2", patching="A", value=0.2)])
    return path


@pytest.mark.parametrize(
    "runs", [[], ["all"], ["newest"], ["sweep1"], ["sweep2"], ["eval"], ["newest", "eval"], ['eval \u00e4"\\', "odd"]]
)
def test_some_runs_are_read_as_if_all_had_been(shared, runs):
    frame, problems = read_runs([shared], runs)
    assert problems == []
    expected = pick_runs(read(shared)[0], runs)[list(frame.columns)]
    assert frame.to_json(orient="records") == expected.to_json(orient="records")


def test_lines_of_other_runs_are_not_parsed(shared, monkeypatch):
    loads, parsed = json.loads, []
    monkeypatch.setattr(results.json, "loads", lambda line: parsed.append(line) or loads(line))
    frame, _ = read_runs([shared], ["newest"])
    assert list(frame["value"]) == [0.1, 0.2]
    assert len(parsed) == 3  # the last line, to find the run, and its two lines


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_files_of_other_programs_are_read_by_run_too(tmp_path, separators):
    path = tmp_path / "other.jsonl"
    rows = [row(run="a\u00e9", patching="A"), row(run="b", patching="A"), row(run="c")]
    path.write_text("".join(json.dumps(each, separators=separators, ensure_ascii=False) + "\n" for each in rows))
    assert list(read_runs([path], ["a\u00e9"])[0]["run"]) == ["a\u00e9"]
    assert list(read_runs([path], ["newest"])[0]["run"]) == ["b"]


def test_wide_records_are_a_run_called_as_their_file(tmp_path, shared):
    path = DATA / "paint-vitb32-mnist.jsonl"
    frame, _ = read_runs([path, shared], ["paint-vitb32-mnist", "eval"])
    assert set(frame["run"]) == {"paint-vitb32-mnist", "eval"}
    assert len(frame) == 203
    assert set(read_runs([path], ["newest"])[0]["run"]) == {"paint-vitb32-mnist"}


def test_a_run_that_no_file_holds_lists_those_that_do(shared):
    with pytest.raises(ResultsError) as caught:
        read_runs([shared], ["newest", "swep2"])
    assert caught.value.message == "there is no run 'swep2'"
    assert caught.value.hint == 'runs there are: sweep1, eval, sweep2, eval \u00e4"\\, odd, null'


def test_a_line_that_was_cut_short_is_named_whatever_run_is_read(shared):
    with shared.open("a") as file:
        file.write('{"run": "sweep9", "patc')
    append(shared, [row(run="sweep3", patching="A")])
    frame, problems = read_runs([shared], ["newest"])
    assert list(frame["run"]) == ["sweep3"]
    assert [problem.partition(" is not")[0] for problem in problems] == [f"{shared}, line 8"]


@pytest.mark.parametrize("content", ["", "\n", "roses\n", '{"patching": "A"}\n'])
def test_the_newest_run_of_a_file_without_one_is_an_error(tmp_path, content):
    (tmp_path / "r.jsonl").write_text(content)
    with pytest.raises(ResultsError):
        read_runs([tmp_path / "r.jsonl"], ["newest"])

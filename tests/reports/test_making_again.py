"""The commands that make a run again: carried out in another store, they make the very checkpoints of the run."""

import shlex

import pytest

import wisepatch as wp
from tests.samples import draw_folder, recipes
from wisepatch.reports.evidence import evidence
from wisepatch.reports.making_again import command_lines, sweep_lines

TRAINING = ("--steps", 2, "--batch-size", 4, "--lr", 1e-2, "--warmup", 0, "--save-every", 0)
PATCH = ("patch", "--model", "demo", "--supported", "kept", *TRAINING, "--alpha", "0,0.5,1")
SEVERAL = (*PATCH, "--task", "first,second", "--strategy")
FINETUNE = ("finetune", "--model", "demo", "--task", "first", "--supported", "kept", *TRAINING)
INTERPOLATE = ("interpolate", "--alpha", "0,0.5,1", "--select")
CLIP = ("import", "clip-state-dict.pt", "--activation", "quickgelu", "--name", "clip")
PAIR = ("import", "patching-checkpoint_0.pt", "patching-checkpoint_5.pt", "--parent", "clip", "--task", "first")
RUNS = {
    "a training": [(
        *PATCH, "--task", "first", "--classnames", "a disc,a sun", "--template", "a {}.", "--template", "one {}", "--seed", 3,
        "--objective", "l2-sp", "--objective-param", "weight=0.5", "--freeze", "stem,0", "--layer-decay", 0.7, "--ema", 0.9,
        "--weights", "balanced", "--limit", 6, "--label-smoothing", 0.1, "--eval-every", 1, "--select", "max-drop=0.5",
        "--name", "a name", "--also", "second,Colors@val", "--select-on", "test",
    )],
    "distilled": [(
        *PATCH, "--task", "first", "--objective", "distill", "--distill-on", "second", "--swa", "--grad-accumulation", 2,
        "--wd", 0.2,
    )],
    "low rank": [(*PATCH, "--task", "first", "--lora", 2, "--keep-best", "top1", "--patience", 2, "--head", "trained")],
    "a classifier": [("patch", "--model", "demo", "--task", "first", "--freeze-encoder", "--epochs", 1, "--batch-size", 4)],
    "fisher": [(*PATCH, "--task", "first", "--method", "fisher", "--fisher-examples", 5)],
    "joint": [(*SEVERAL, "joint", "--balance", "tasks")],
    "sequential": [(*SEVERAL, "sequential", "--select", "max-drop=0.5")],
    "parallel": [(*SEVERAL, "parallel", "--select", "knee")],
    "a grid": [(*SEVERAL, "parallel", "--coefficients", "grid", "--also", "Colors@val")],
    "a search": [(*SEVERAL, "parallel", "--coefficients", "search", "--evaluations", 6)],
    "layers": [FINETUNE, (*INTERPOLATE, "knee", "--layers", "0.123456789:1")],
    "other measurements": [
        FINETUNE, (*INTERPOLATE, "best-mean", "--eval", "second", "--metric", "macro_f1,top1", "--limit", 3, "--name", "other"),
    ],
    "joint with layers": [(*SEVERAL, "joint"), (*INTERPOLATE, "best-mean", "--layers", "lines")],
    "from a patched model": [
        (*PATCH, "--task", "second"), (*FINETUNE[:1], *FINETUNE[3:], "--from", "patched"), (*INTERPOLATE, "knee"),
    ],
    "an imported pair": [
        CLIP, (*PAIR, "--classnames", "a disc,a sun", "--template", "a {}."), (*INTERPOLATE, "knee", "--eval", "kept"),
    ],
    "from an imported model": [CLIP, (PATCH[0], *PATCH[3:], "--task", "first", "--from", "clip")],
}  # fmt: skip

COLUMNS = [
    "run", "run_name", "checkpoint", "method", "alpha", "task", "split", "metric", "value", "n", "role", "patching", "limit",
    "chosen",
]  # fmt: skip


@pytest.fixture
def folders(tmp_path, papers):
    for file in papers.glob("*.pt"):
        (tmp_path / file.name).symlink_to(file)
    for name, classes in {
        "first": ("circle", "star"),
        "second": ("heart", "ring"),
        "kept": ("square", "arrow"),
    }.items():
        draw_folder(tmp_path / name, per_class=6, classes=classes)
    return tmp_path


def carry_out(cli, lines, store):
    for words in lines:
        done = cli(*words, "--store", store, "--data", ".")
        assert done.exit_code == 0, (words, done.output)


def rows_of(store, run=None):
    frame = wp.load_results(store).reindex(columns=COLUMNS)
    rows = frame[frame["run"] == run] if run else frame
    return {tuple(map(str, row)) for row in rows.drop(columns="run").itertuples(index=False)}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("a grid", "an imported pair") else pytest.mark.slow) for name in RUNS],
)
def test_commands_make_the_checkpoints_and_the_results_of_the_run(cli, folders, name):
    carry_out(cli, RUNS[name], "first-store")
    store = wp.Store(folders / "first-store")
    patched = store.find("patched")
    lines = sweep_lines(store, patched, evidence(store, patched))
    carry_out(cli, [shlex.split(line)[1:] for line in lines], "second-store")
    again = wp.Store(folders / "second-store")
    assert again.find("patched").id == patched.id
    assert rows_of(store, evidence(store, patched).run) <= rows_of(again)


@pytest.mark.slow
@pytest.mark.parametrize("start", [("--model", "demo"), ("--from", "clip")], ids=["published", "imported"])
def test_commands_make_a_merge_and_its_ends(cli, folders, start):
    first = (FINETUNE[0], *start, *FINETUNE[3:])
    second = (*first[:3], "--task", "second", *first[5:])
    carry_out(cli, [CLIP, first, second], "first-store")
    store = wp.Store(folders / "first-store")
    ends = [each.id for each in store.everything() if each.kind == "finetuned"]
    merge = (
        "merge",
        *ends,
        "--method",
        "ties",
        "--param",
        "scale=0.1234567",
        "--layers",
        "0.5:1",
        "--no-eval",
        "--name",
        "mine",
    )
    carry_out(cli, [merge], "first-store")
    merged = store.find("mine")
    *lines, _ = command_lines(store, merged, evidence(store, merged))
    carry_out(cli, [shlex.split(line)[1:] for line in lines], "second-store")
    assert wp.Store(folders / "second-store").find("mine").recipe == merged.recipe


def test_sweep_without_a_choice_is_swept_again_at_all_its_alphas(run_store, tmp_path):
    wp.sweep(run_store, tmp_path, tasks="Colors@val", alphas="0,0.25,1", limit=5)
    (mix,) = recipes(run_store, [0.25])
    *_, line = sweep_lines(run_store, mix, evidence(run_store, mix))
    assert line == "wisepatch interpolate --alpha 0,0.25,1 --eval Colors@val --limit 5"

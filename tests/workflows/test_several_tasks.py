"""Several tasks patched into one model: jointly, one after the other, side by side."""

import json
import shutil
import signal
from itertools import product

import pytest
import torch

from tests.samples import Notes, draw_folder
from tests.training.test_resume import stop_at  # noqa: F401 -- a fixture
from wisepatch import ModelConfig, Rule, Store, TrainConfig, evaluate, load_results, load_weights, patch
from wisepatch.analysis.coefficients import equal
from wisepatch.analysis.sweep_frame import frames_of_runs, points
from wisepatch.errors import Stopped, UsageError
from wisepatch.reports.plots import sweep_table
from wisepatch.reports.publishing import export
from wisepatch.task_roles import RunTasks
from wisepatch.training import finetuning, rates
from wisepatch.workflows.patching import finetune_watched
from wisepatch.workflows.planning import plan_patch
from wisepatch.workflows.preflight import PreflightError
from wisepatch.workflows.several_tasks import strategy_for
from wisepatch.workflows.sweep_plan import plan_sweep

DEMO = ModelConfig("demo", "")
SHORT = {"steps": 3, "batch_size": 6, "lr": 1e-2, "warmup": 0, "save_every": 0}
NAMES = ("first", "second", "third")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three small tasks to patch, and a supported one."""
    root = tmp_path_factory.mktemp("tasks")
    classes = (("circle", "star"), ("heart", "ring", "cross"), ("square", "arrow"))
    for name, of_task in zip(NAMES, classes, strict=True):
        draw_folder(root / name, per_class=8, classes=of_task)
    draw_folder(root / "kept", per_class=8, classes=("diamond", "crescent"))
    return root


def run(folders, store, *, tasks=NAMES, settings=None, **options):
    words = [str(folders / name) for name in tasks]
    config = TrainConfig.with_defaults(words, supported=str(folders / "kept"), **SHORT | (settings or {}))
    return patch(config, DEMO, Store(store), folders, **{"alphas": (0, 0.5, 1)} | options)


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    """A store in which the three tasks were patched side by side with equal coefficients; copy it before writing."""
    store = tmp_path_factory.mktemp("trained") / "store"
    return store, run(folders, store, strategy="parallel")


@pytest.fixture
def held(trained, tmp_path):
    """A copy of that store, and what was patched there."""
    shutil.copytree(trained[0], tmp_path / "held")
    return tmp_path / "held", trained[1]


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(finetuning, "learning_rate", lambda *_: pytest.fail("a step was trained"))


def test_joint_trains_once_and_judges_every_task_by_its_own_head(folders, tmp_path):
    done = run(folders, tmp_path / "store", settings={"balance": "tasks"}, also="Colors@val")
    (training,) = done.runs
    assert training.finetuned.config["tasks"] == [str(folders / name) for name in NAMES]
    assert training.finetuned.config["balance"] == "tasks"
    chosen = done.sweep.chosen
    assert chosen.name == "demo/first+second+third/patched"
    assert chosen.parents == (training.zeroshot.id, training.finetuned.id)
    assert chosen.config["strategy"] == "joint"
    # The mean over what is patched and that over the supported, as the rows tell them.
    for split in ("val", "test"):
        for point in done.sweep.points[split]:
            value = {
                row["task"]: row["value"]
                for row in done.sweep.rows
                if (row["split"], row["alpha"]) == (split, point.alpha)
            }
            assert point.patching == pytest.approx(sum(value[name] for name in NAMES) / 3)
            assert point.mean_score == pytest.approx((point.patching + value["kept"]) / 2)
    assert {row["role"] for row in done.sweep.rows if row["task"] in NAMES} == {"patching"}
    assert list(done.table.models) == ["zero-shot", "fine-tuned", "patched"]
    assert [cell.role for cell in done.table.tasks] == ["patching"] * 3 + ["supported", "also"]
    # The head of each task is the published one: what is measured is what eval measures.
    (row,) = evaluate(chosen.id, str(folders / "second"), Store(tmp_path / "store"), folders)
    assert row["value"] == next(c.value for c in done.table.cells["patched"] if c.task == "second")


@pytest.mark.slow
def test_a_joint_training_that_was_stopped_goes_on_to_the_same_weights(folders, tmp_path, stop_at):  # noqa: F811
    settings = {"balance": "tasks", "eval_every": 1.0, "label_smoothing": 0.1, "weights": "balanced", "steps": 9}
    straight = run(folders, tmp_path / "straight", settings=settings)
    stop_at(2, 7)
    for _ in range(2):
        with pytest.raises(Stopped):
            run(folders, tmp_path / "stopped", settings=settings)
    resumed = run(folders, tmp_path / "stopped", settings=settings)
    weights = [
        load_weights(Store(tmp_path / s), done.run.finetuned)
        for s, done in (("straight", straight), ("stopped", resumed))
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert resumed.sweep.chosen.id == straight.sweep.chosen.id


def test_the_best_weights_of_a_joint_training_are_best_in_the_mean(folders, tmp_path):
    notes = Notes()
    done = run(folders, tmp_path / "store", settings={"keep_best": "top1", "steps": 18}, progress=notes)
    looks = [line for line in notes.notes if line.startswith("epoch")]
    assert len(looks) >= 2
    assert all(name in looks[0] for name in (*NAMES, "kept"))
    assert any("keeping the weights of epoch" in line for line in notes.notes)
    assert done.run.finetuned.config["keep_best"] == "top1"


def test_sequential_patches_each_task_from_the_model_patched_before(folders, tmp_path):
    done = run(folders, tmp_path / "store", strategy="sequential")
    store = Store(tmp_path / "store")
    assert [training.zeroshot.id for training in done.runs[1:]] == [sweep.chosen.id for sweep in done.sweeps[:-1]]
    assert done.runs[0].zeroshot.kind == "zeroshot"
    assert [sweep.patching_tasks for sweep in done.sweeps] == [NAMES[:1], NAMES[:2], NAMES]
    # An alpha is chosen on validation data of what came before; test data is seen once, at the end.
    assert [set(sweep.points) for sweep in done.sweeps] == [{"val"}, {"val"}, {"val", "test"}]
    assert {row["task"] for row in done.sweeps[1].rows} == {"first", "second", "kept"}
    assert done.sweep.chosen.config["strategy"] == "sequential"
    export(Store(tmp_path / "store"), done.sweep.chosen, tmp_path / "model")
    assert (
        "- **strategy**: sequential: the tasks were patched one after the other"
        in (tmp_path / "model" / "README.md").read_text()
    )
    assert list(done.table.models) == ["zero-shot", "patched on first", "patched on first and second", "patched"]
    assert store.problem(done.sweep.chosen) == ""
    assert load_weights(store, done.sweep.chosen).keys() == load_weights(store, done.runs[0].zeroshot).keys()
    # What is chosen from and drawn afterwards is the last sweep.
    rows = load_results(store)
    ((split, swept),) = frames_of_runs(rows[rows["run"] == done.sweep.run]).values()
    assert (split, points(swept)) == ("val", done.sweep.points["val"])
    drawn = sweep_table(rows[rows["run"] == done.sweep.run])
    assert (set(drawn["task"]), list(drawn["alpha"])) == ({done.sweep.patching}, [0, 0.5, 1])


def test_choices_one_after_the_other_share_what_a_certified_drop_may_be_wrong(folders, tmp_path):
    """Each may break its promise, and the next builds on it."""
    progress = Notes()
    done = run(
        folders, tmp_path / "store", tasks=NAMES[:2], strategy="sequential", rule="max-drop=0.3@90", progress=progress
    )
    assert [str(sweep.rule) for sweep in done.sweeps] == ["max-drop=0.3@95"] * 2
    assert (
        "each of the 2 choices is made by max-drop=0.3@95, so that max-drop=0.3@90 holds of all together"
        in progress.notes
    )


@pytest.mark.slow
@pytest.mark.parametrize("when", ["in the second training", "after the second training"])
def test_sequential_goes_on_after_a_kill(folders, tmp_path, monkeypatch, stop_at, when):  # noqa: F811
    straight = run(folders, tmp_path / "straight", strategy="sequential", tasks=NAMES[:2])
    if when == "in the second training":
        stop_at(5, number=signal.SIGTERM)
        raised = Stopped
    else:
        from wisepatch.workflows import patch_job

        sweep, calls = patch_job.run_sweep, []

        def killed(*given, **options):
            calls.append(given)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return sweep(*given, **options)

        monkeypatch.setattr(patch_job, "run_sweep", killed)
        raised = KeyboardInterrupt
    with pytest.raises(raised) as stopped:
        run(folders, tmp_path / "store", strategy="sequential", tasks=NAMES[:2])
    assert any("the same command goes on from it" in note for note in stopped.value.__notes__)
    notes = Notes()
    again = run(folders, tmp_path / "store", strategy="sequential", tasks=NAMES[:2], progress=notes)
    assert again.sweep.chosen.id == straight.sweep.chosen.id
    assert any("first: this training is finished already" in line for line in notes.notes)


@pytest.mark.parametrize(
    ("strategy", "ends", "goes_on"),
    [
        ("joint", 1, "the fine-tuned model is stored; go on with: wisepatch interpolate --checkpoint={} "),
        ("sequential", 1, "the fine-tuned model is stored; the same command goes on from it ({})"),
        ("parallel", 2, "the fine-tuned models are stored ({}, {}); the same command goes on from them"),
    ],
)
def test_what_fails_after_the_trainings_names_what_they_made_and_how_to_go_on(
    folders, tmp_path, monkeypatch, strategy, ends, goes_on
):
    monkeypatch.setattr("wisepatch.workflows.run.evaluate", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(folders, tmp_path / "store", strategy=strategy, tasks=NAMES[:2], settings={"steps": 1, "limit": 9})
    (note,) = stopped.value.__notes__
    stored = [each.id for each in Store(tmp_path / "store").everything() if each.kind == "finetuned"]
    assert len(stored) == ends
    assert any(note.startswith(goes_on.format(*order)) for order in (stored, stored[::-1])), note
    assert (" --limit=9 " in note) == (strategy == "joint")


def test_parallel_adds_the_task_vectors_of_all_ends(trained, folders):
    store, done = Store(trained[0]), trained[1]
    start, chosen = done.runs[0].zeroshot, done.sweep.checkpoints[0.5]
    assert {training.zeroshot.id for training in done.runs} == {start.id}
    assert chosen.recipe.method == "task-arithmetic"
    assert chosen.parents == (start.id, *(training.finetuned.id for training in done.runs))
    begun, mixed = load_weights(store, start), load_weights(store, chosen)
    ends = [load_weights(store, training.finetuned) for training in done.runs]
    for name, tensor in begun.items():
        if tensor.is_floating_point():
            wanted = tensor.double() + 0.5 * sum(end[name].double() - tensor.double() for end in ends)
            assert torch.allclose(mixed[name].double(), wanted, atol=1e-6)
    assert done.sweep.chosen.config["tasks"] == [str(folders / name) for name in NAMES]
    assert list(done.table.models) == ["zero-shot", *(f"fine-tuned on {name}" for name in NAMES), "patched"]


def test_ends_that_the_store_holds_are_not_trained_again(held, folders, no_training):
    store, before = held
    notes = Notes()
    again = run(folders, store, tasks=NAMES[1:], strategy="parallel", progress=notes)  # other tasks beside them
    assert [training.finetuned.id for training in again.runs] == [training.finetuned.id for training in before.runs[1:]]
    assert sum("the store holds this end" in line for line in notes.notes) == 2


@pytest.mark.slow
def test_an_end_of_a_patch_of_one_task_is_used_whatever_was_supported(folders, tmp_path, monkeypatch):
    config = TrainConfig.with_defaults(str(folders / "first"), supported="Shapes", **SHORT)
    alone = finetune_watched(config, DEMO, Store(tmp_path / "store"), folders)
    done = run(folders, tmp_path / "store", tasks=NAMES[:2], strategy="parallel")
    assert done.runs[0].finetuned.id == alone.finetuned.id
    monkeypatch.setattr(finetuning, "learning_rate", lambda *_: pytest.exit("trains"))
    for other in ({"lr": 1e-3}, {"seed": 1}):
        with pytest.raises(pytest.exit.Exception, match="trains"):
            run(folders, tmp_path / "store", tasks=NAMES[:2], strategy="parallel", settings=other)
    with pytest.raises(pytest.exit.Exception, match="trains"):
        run(folders, tmp_path / "store", tasks=NAMES[:2], strategy="parallel", fresh=True)


def test_another_rule_measures_nothing_anew(held, folders, no_training, monkeypatch):
    store, before = held
    monkeypatch.setattr("wisepatch.evaluation.recall.predict_many", lambda *_, **__: pytest.fail("measured anew"))
    again = run(folders, store, strategy="parallel", rule="alpha=0.5")
    assert {mix.id for mix in again.sweep.checkpoints.values()} == {mix.id for mix in before.sweep.checkpoints.values()}
    assert again.sweep.chosen.config["select"] == "alpha=0.5"


def test_a_grid_takes_the_best_of_all_combinations(held, folders):
    store, _ = held
    done = run(folders, store, strategy="parallel", coefficients="grid")
    rows = [row for row in done.sweep.rows if row["split"] == "val"]
    measured = {}
    for row in rows:
        measured.setdefault(tuple(row["params"]["alphas"]), {})[row["task"]] = row["value"]
    assert set(measured) == set(product((0.0, 0.5, 1.0), repeat=3))
    means = {each: (sum(of[name] for name in NAMES) / 3 + of["kept"]) / 2 for each, of in measured.items()}
    best = max(means.values())
    least = min(sum(each) for each, mean in means.items() if mean > best - 1e-9)
    chosen = done.sweep.coefficients[done.sweep.choice.alpha]
    assert (means[chosen], sum(chosen)) == (pytest.approx(best), least)  # of equally good ones that which moves least
    assert done.sweep.chosen.config["coefficients"] == {
        str(folders / name): value for name, value in zip(NAMES, chosen, strict=True)
    }
    assert {row["alpha"] for row in rows} == {0.0, 0.5, 1.0, None}  # one number where all are the same
    assert [row["chosen"] for row in rows if tuple(row["params"]["alphas"]) == chosen] == [True] * 4
    # Test data: equal coefficients, the ends and the choice, and no candidate besides.
    tested = {tuple(row["params"]["alphas"]) for row in done.sweep.rows if row["split"] == "test"}
    assert tested == {*equal((0.0, 0.5, 1.0), 3), (1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), chosen}
    kept = load_results(store)
    assert kept[kept["run"] == done.sweep.run]["candidate"].max() == 26


@pytest.mark.extra
def test_a_search_stays_within_its_evaluations_and_is_repeatable(held, folders, no_training):
    pytest.importorskip("cma")
    store, before = held
    done = [
        run(folders, store, strategy="parallel", coefficients="search", evaluations=9, rule=Rule("max-drop", 0.5))
        for _ in range(2)
    ]
    assert done[0].sweep.coefficients == done[1].sweep.coefficients
    assert done[0].sweep.chosen.id == done[1].sweep.chosen.id
    candidates = set(done[0].sweep.coefficients.values())
    assert 3 < len(candidates) <= 9
    assert candidates >= set(equal((0.0, 0.5, 1.0), 3))
    assert all(0 <= value <= 1 for each in candidates for value in each)
    by_alpha = {point.alpha: point for point in before.sweep.points["val"]}
    assert done[0].sweep.choice.patching >= max(
        point.patching for point in by_alpha.values() if by_alpha[0.0].supported - point.supported <= 0.5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "all"}, "there is no strategy 'all'"),
        ({"strategy": "parallel", "coefficients": "many"}, "there are no coefficients 'many'"),
        ({"strategy": "parallel", "settings": {"balance": "tasks"}}, "--balance is of --strategy joint, and this is parallel"),
        ({"coefficients": "grid"}, "--coefficients is of --strategy parallel, and this is joint"),
        ({"strategy": "parallel", "evaluations": 9}, "--evaluations counts those of a search"),
        ({"strategy": "parallel", "method": "fisher"}, "parallel mixes by their task vectors, one coefficient each"),
        ({"method": "fisher"}, "joint mixes by --method linear, and not by fisher"),
        ({"settings": {"head": "trained"}}, "a checkpoint has one trained head, and several tasks have one each"),
        ({"settings": {"freeze_encoder": True}}, "a checkpoint has one trained head"),
        ({"alphas": "auto"}, "--alpha auto races alphas of one patching task"),
        ({"also": "kept"}, "kept.* is measured anyway|kept"),
        (
            {"strategy": "parallel", "coefficients": "grid", "alphas": "0:1:0.05"},
            "a grid of 21 coefficients for 3 tasks has 9,261 candidates, and 1,500 are the most",
        ),
        (
            {"strategy": "parallel", "coefficients": "grid", "rule": "max-drop=0.1@95"},
            "max-drop=0.1@95 tests alphas in a fixed order, and grid coefficients have none",
        ),
        ({"strategy": "parallel", "coefficients": "grid", "rule": "alpha=0.5"}, "names one alpha, and grid coefficients are"),
        ({"strategy": "parallel", "coefficients": "search", "rule": "knee"}, "a search cannot go by knee"),
        ({"strategy": "parallel", "coefficients": "search", "evaluations": 3}, "3 evaluations are no search"),
        ({"strategy": "parallel", "coefficients": "grid", "select_on": "test"}, "grid coefficients would be fitted to test data"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_before_any_training(folders, tmp_path, no_training, options, message):
    also = {"also": str(folders / "kept")} if "also" in options else {}
    with pytest.raises(UsageError, match=message):
        run(folders, tmp_path / "store", **options | also)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("strategy", ["joint", "sequential", "parallel"])
def test_an_objective_that_trains_a_head_is_named_where_several_tasks_have_one_each(
    folders, tmp_path, no_training, strategy
):
    with pytest.raises(UsageError, match="several tasks have one each") as caught:
        run(folders, tmp_path / "store", strategy=strategy, settings={"objective": "lp-ft", "head": "trained"})
    assert caught.value.hint == "take another objective than lp-ft, or patch one task at a time"


@pytest.mark.parametrize("options", [{"strategy": "sequential"}, {"strategy": "parallel", "coefficients": "grid"}])
def test_a_strategy_needs_a_supported_task_with_validation_data(folders, tmp_path, no_training, options):
    untold = draw_folder(tmp_path / "untold" / "test", classes=("circle", "star")).parent
    config = TrainConfig.with_defaults([str(folders / name) for name in NAMES], supported=str(untold), **SHORT)
    with pytest.raises(UsageError, match="on val data, and no supported task has any: untold"):
        patch(config, DEMO, Store(tmp_path / "store"), folders, **options)
    assert not (tmp_path / "store").exists()


def test_a_task_that_cannot_be_trained_is_said_before_the_first_is(folders, tmp_path, no_training):
    untold = draw_folder(tmp_path / "untold" / "test", classes=("circle", "star")).parent
    config = TrainConfig.with_defaults([str(folders / "first"), str(untold)], **SHORT)
    with pytest.raises(PreflightError, match="task 'untold' has no 'train' split"):
        patch(config, DEMO, Store(tmp_path / "store"), folders, strategy="sequential")
    assert not (tmp_path / "store").exists()


def test_settings_of_several_tasks_are_refused_for_one(folders, tmp_path, no_training):
    with pytest.raises(UsageError, match="--strategy is about several tasks, and there is one"):
        run(folders, tmp_path / "store", tasks=NAMES[:1], strategy="joint")
    with pytest.raises(UsageError, match="--balance is about several tasks, and there is one"):
        run(folders, tmp_path / "store", tasks=NAMES[:1], settings={"balance": "tasks"})


def test_one_task_has_a_table_where_others_are_measured_besides(folders, tmp_path):
    done = run(folders, tmp_path / "store", tasks=NAMES[:1], also=[str(folders / "third")])
    assert [(cell.task, cell.role) for cell in done.table.tasks] == [
        ("first", "patching"),
        ("kept", "supported"),
        ("third", "also"),
    ]
    assert run(folders, tmp_path / "store", tasks=NAMES[:1]).table is None


def test_commands_work_on_what_was_patched(cli, held, folders, tmp_path):
    store, done = held
    where = ("--store", store, "--data", folders)
    shown = cli("store", "show", "patched", *where)
    assert shown.exit_code == 0
    assert "task-arithmetic" in shown.output
    measured = cli("eval", "patched", "--json", *where)
    assert measured.exit_code == 0, measured.output
    rows = [json.loads(line) for line in measured.stdout.splitlines()]
    assert [row["task"] for row in rows] == [*NAMES, "kept"]
    exported = cli("export", "patched", tmp_path / "model", *where)
    assert exported.exit_code == 0, exported.output
    card = (tmp_path / "model" / "README.md").read_text()
    assert "first, second, third" in card
    assert "patch" in card
    assert "--strategy parallel" in card
    refused = cli("export", "patched", tmp_path / "one", "--format", "classifier", *where)
    assert "was patched on several tasks, and a classifier has the classes of one" in refused.stderr
    assert cli("predict", "patched", folders / "first", *where).exit_code == 2
    assert cli("store", "verify", *where).exit_code == 0
    drawn = cli("plot", "--run", done.sweep.run, "--output", tmp_path / "plot.png", *where)
    assert drawn.exit_code == 0, drawn.output
    chosen = cli("select", "--rule", "best-mean", "--rule", "knee", *where)
    assert chosen.exit_code == 0, chosen.output
    removed = cli("store", "rm", done.runs[0].finetuned.id, *where)
    assert removed.exit_code == 1  # the recipe needs it


WORDS = ("--steps", 3, "--batch-size", 6, "--lr", "1e-2", "--warmup", 0, "--save-every", 0, "--alpha", "0,0.5,1")


def command(folders, store, *words, tasks=NAMES):
    named = ",".join(str(folders / name) for name in tasks)
    return (
        "patch",
        "--model",
        "demo",
        "--task",
        named,
        "--supported",
        folders / "kept",
        *WORDS,
        "--store",
        store,
        *words,
    )


def test_the_command_prints_one_table_and_programs_get_every_cell(cli, held, folders, no_training):
    store, _ = held
    words = command(folders, store, "--strategy", "parallel", "--coefficients", "grid")
    shown = cli(*words, "--output", "picture.png")
    assert shown.exit_code == 0, shown.output
    assert "of 27 candidates, by the mean of patched and supported accuracy" in shown.stdout
    assert "at the coefficients" in shown.stdout
    assert "fine-tuned on" in shown.stdout
    printed = [json.loads(line) for line in cli(*words, "--json").stdout.splitlines()]
    cells = [each for each in printed if each["type"] == "model_table"]
    assert [each["task"] for each in cells if each["model"] == "patched"] == [*NAMES, "kept"]
    assert {each["role"] for each in cells} == {"patching", "supported"}
    (choice,) = [each for each in printed if each["type"] == "choice"]
    assert set(choice["coefficients"]) == set(NAMES)
    assert choice["alpha"] is None
    chosen = cli("select", "--rule", "best-mean", "--store", store, "--json")
    assert json.loads(chosen.stdout)["candidate"] == choice["candidate"]


@pytest.mark.slow
def test_a_plan_counts_all_trainings_and_candidates(cli, folders, no_training):
    def planned(*words):
        result = cli(*command(folders, "elsewhere", *words, "--plan", "--json", tasks=NAMES[:2]))
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    joint, one_by_one = planned("--strategy", "joint"), planned("--strategy", "sequential")
    assert (joint["steps"], one_by_one["steps"]) == (3, 6)
    assert (joint["mixes"], one_by_one["mixes"]) == (3, 6)
    grid = planned("--strategy", "parallel", "--coefficients", "grid")
    assert (grid["steps"], grid["mixes"]) == (6, 9)
    assert [(each["task"], each["purpose"]) for each in grid["readings"][:2]] == [
        (NAMES[0], "training"),
        (NAMES[1], "training"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--strategy", "all"), "'all' is not one of 'joint', 'sequential', 'parallel'"),
        (("--seeds", "0,1"), "--seeds patches one task, and measures nothing besides"),
        (
            ("--balance", "tasks", "--strategy", "sequential"),
            "--balance is of --strategy joint, and this is sequential",
        ),
    ],
)
def test_the_command_refuses_by_name(cli, folders, no_training, words, message):
    result = cli(*command(folders, "elsewhere", *words))
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize("strategy", ["sequential", pytest.param("parallel", marks=pytest.mark.slow)])
def test_objectives_of_one_task_are_trained_where_one_task_is_at_a_time(strategy, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(rates, "MEASURED_SECONDS", 0)
    words = [str(folders / name) for name in NAMES[:2]]
    config = TrainConfig.with_defaults(words, objective="distill", supported=str(folders / "kept"), **SHORT)
    tasks = RunTasks.of(config)
    plan = plan_sweep(tasks.patching, tasks.supported, alphas=(0, 1), rule=Rule())
    asked = strategy_for(tasks.patching, strategy, None, None)
    assert not list(asked.problems(plan, config))
    assert plan_patch(config, DEMO, Store(tmp_path), folders, plan, tasks=tasks, asked=asked).steps == 6
    joint = strategy_for(tasks.patching, "joint", None, None)
    with pytest.raises(UsageError, match="distill trains on one task, and here are 2"):
        plan_patch(config, DEMO, Store(tmp_path), folders, plan, tasks=tasks, asked=joint)

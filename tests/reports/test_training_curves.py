"""Pictures of trainings: losses, rates and validation of the store's logs."""

import pytest

from tests.samples import fails
from wisepatch.errors import ResultsError
from wisepatch.reports.training_curves import draw_training, training_table

LOG = [
    {"step": 1, "epoch": 0.5, "loss": 2.0, "lr": 0.1, "images_per_second": 9.0},
    {"step": 2, "epoch": 1.0, "validation": {"A": 0.5, "B$": 0.25}},
    {"step": 10, "epoch": 5.0, "loss": 1.0, "lr": 0.2},
]


def test_a_log_becomes_one_row_a_number():
    table = training_table({"first": LOG})
    rows = [tuple(row) for row in table[["step", "measure", "task", "value"]].itertuples(index=False)]
    assert rows == [
        (1, "loss", "", 2.0), (1, "lr", "", 0.1), (2, "validation", "A", 0.5), (2, "validation", "B$", 0.25),
        (10, "loss", "", 1.0), (10, "lr", "", 0.2),
    ]  # fmt: skip
    with pytest.raises(ResultsError, match="no training has logged anything"):
        training_table({"first": []})


def test_each_measure_has_a_panel_and_each_training_a_curve():
    figure = draw_training(training_table({"first": LOG, "second": LOG}))
    panels = {axes.get_ylabel(): [line.get_label() for line in axes.lines] for axes in figure.axes}
    assert panels == {
        "loss": ["first", "second"],
        "learning rate": ["first", "second"],
        "top1 on validation data": ["first: A", "first: B$", "second: A", "second: B$"],
    }
    bare = draw_training(training_table({"first": LOG[:1]}), "mine")
    assert [axes.get_ylabel() for axes in bare.axes] == ["loss", "learning rate"]
    assert "mine" in [text.get_text() for text in bare.figure.texts]


def test_steps_are_whole_numbers():
    figure = draw_training(training_table({"run": [{"step": step, "loss": 1 / step, "lr": 0.1} for step in (1, 2, 3)]}))
    assert all(tick == round(tick) for tick in figure.axes[-1].get_xticks())


def test_plot_draws_trainings_by_id_checkpoint_or_all_of_them(cli, run_store, shapes, tmp_path):
    words = ("--model", "demo", "--task", shapes, "--steps", "2", "--batch-size", "4", "--eval-every", "0.1")
    assert cli("finetune", *words).exit_code == 0
    assert cli("plot", "--kind", "training").stdout == "drew 1 training to plot.png\n"
    assert (
        cli("plot", "--kind", "training", "--run", "all", "--output", "a.svg").stdout == "drew 2 trainings to a.svg\n"
    )
    assert "validation data" in (tmp_path / "a.svg").read_text() or (tmp_path / "a.svg").stat().st_size > 0
    for word in (run_store.find("finetuned").id, "finetuned", next((run_store.root / "runs").glob("[!.]*")).name):
        assert cli("plot", "--kind", "training", "--run", word).stdout == "drew 1 training to plot.png\n"
    fails(cli("plot", "--kind", "training", "--run", "nonesuch"), 1, "no training 'nonesuch' has logged", "there are: ")
    fails(cli("plot", "--kind", "training", "--over-alpha"), 2, "--kind training draws what trainings")
    fails(cli("plot", "--kind", "training", "--store", "empty"), 1, "no training has logged anything", "finetune")

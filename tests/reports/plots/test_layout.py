"""Nothing that is written covers anything else or leaves the picture, whatever kind, look, size and names."""

import pytest

from tests.reports.plots.pictures import KINDS, LOOKS, both, drawn, layout_problems, measured, picture, texts
from wisepatch import Look, draw_per_task, draw_robustness, draw_sweep, per_task_table, robustness_table, sweep_table
from wisepatch.errors import UsageError

TITLE = "How accuracy on what was to be fixed and on what was to be kept goes with the share of the fine-tuned weights"


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_covers_another_or_leaves_the_picture(kind):
    assert layout_problems(drawn(kind)) == []


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_covers_another_in_any_look(kind, look):
    assert layout_problems(picture(kind, LOOKS[look])) == []


SMALL = [
    kind if kind in ("frontier-compare", "robustness", "layers") else pytest.param(kind, marks=pytest.mark.slow)
    for kind in KINDS
]


@pytest.mark.parametrize("kind", SMALL)
def test_a_small_picture_with_a_long_title_has_room_for_all(kind):
    figure = picture(kind, LOOKS["small"], TITLE)
    assert layout_problems(figure) == []
    assert TITLE in {text.replace("\n", " ") for text, _ in texts(figure)}
    assert figure.get_size_inches().tolist() == list(LOOKS["small"].size)


def test_what_covers_or_leaves_is_noticed():
    figure = picture("frontier")
    figure.text(0.02, 0.01, "over the note")
    figure.text(0.99, 0.5, "over the edge")
    problems = layout_problems(figure)
    assert any("over the note" in problem and "covers" in problem for problem in problems)
    assert "'over the edge' leaves the picture" in problems


@pytest.mark.parametrize(("draw", "table"), [(draw_sweep, sweep_table), (draw_per_task, per_task_table)])
def test_long_names_of_tasks_and_runs_have_room(draw, table):
    tasks = ("a_task_" * 30, "$x^{2}$ and_more " * 8, "猫と犬" * 20, "plain")
    results = both(tasks=tasks)
    results["run_name"] = results["run_name"].map(lambda name: f"{name} " + "run " * 50)
    for look in (Look(), Look(paper=True), Look(size=(6, 6))):
        assert layout_problems(draw(table(results), None, look)) == []


def test_a_panel_with_long_names_of_shifts_has_room():
    tasks = ("ref", "shift_" * 20, "another shift " * 10, "third")
    table = robustness_table(measured(tasks=tasks), shifts=list(tasks[1:]))
    assert layout_problems(draw_robustness(table, None, Look(paper=True))) == []


def test_a_size_without_room_for_the_labels_is_refused_and_says_what_helps():
    with pytest.raises(UsageError, match="has no room for its labels") as caught:
        picture("robustness", Look(size=(1.6, 1.6)))
    assert "--size" in caught.value.hint


def test_papers_have_the_width_of_a_column_or_a_page_and_no_title():
    assert picture("frontier", Look(paper=True)).get_size_inches()[0] == pytest.approx(3.35)
    figure = picture("layers", Look(paper=True))
    assert figure.get_size_inches()[0] == pytest.approx(6.9)
    words = {text for text, _ in texts(figure)}
    assert not any(text.startswith("How far") for text in words)
    assert any(text == "Mine" for text, _ in texts(picture("layers", Look(paper=True), "Mine")))


def test_an_empty_title_is_none_and_the_split_stays():
    words = [text for text, _ in texts(picture("frontier", None, ""))]
    assert not any("Mixing" in text for text in words)
    assert "TEST DATA" in words
    assert "Mixing zero-shot and fine-tuned weights: MNIST" in [text for text, _ in texts(drawn("frontier"))]


def test_test_and_validation_pictures_are_told_apart_without_colour():
    tags = {}
    for split, figure in (("test", drawn("per-task")), ("val", drawn("alpha"))):
        (tag,) = [text for text in figure.texts if text.get_text().endswith(" DATA")]
        box = tag.get_bbox_patch()
        tags[split] = tag.get_text(), box.get_linestyle(), sum(box.get_facecolor()[:3]) > 1.5
    assert tags == {"test": ("TEST DATA", "-", False), "val": ("VALIDATION DATA", "--", True)}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("frontier", "n is not recorded; no intervals without it"),
        ("frontier-compare", "n = 500 images a task; bars: 95 % intervals"),
        ("alpha", "n = 500 images a task; bands: 95 % intervals"),
        ("per-task", "n = 500 images a task; bands: 95 % intervals"),
        ("robustness-pair", "n = 500 images a task; bars: 95 % intervals"),
        ("layers", "no split, no interval"),
        ("training", "validation data, without n and interval in the log"),
        ("confusion", "n = 500 images; accuracy "),
        ("calibration", "n = 500 images; bars: 95 % intervals"),
    ],
)
def test_every_picture_says_how_many_images_and_which_interval(kind, said):
    assert any(said in text.replace("\n", " ") for text, _ in texts(drawn(kind)))

"""The tasks of a run, as it was trained."""

from dataclasses import replace

from tests.samples import draw_folder
from wisepatch.datasets.splits import CUT
from wisepatch.tasks import find_task
from wisepatch.workflows.tasks_of_run import evaluation_tasks, tasks_of_run


def parts(task, root):
    return {split: task.dataset.split(split, root).image_ids() for split in ("train", "val", "test")}


def test_a_checkpoint_keeps_the_cut_of_the_images_that_it_was_trained_on(finished):
    root, done = finished
    assert done.finetuned.config["cut"] == CUT == 3
    now = find_task(str(root / "shapes"))
    assert parts(tasks_of_run(done.finetuned)[0], root) == parts(now, root)
    config = {name: value for name, value in done.finetuned.config.items() if name != "cut"}
    early = replace(done.finetuned, config=config)
    before = parts(find_task(str(root / "shapes"), cut=1), root)
    assert before != parts(now, root)
    assert parts(tasks_of_run(early)[0], root) == before
    assert parts(evaluation_tasks([early], [])[0], root) == before
    assert parts(evaluation_tasks([early], [str(root / "shapes")])[0], root) == before
    assert parts(evaluation_tasks([done.finetuned], [str(root / "shapes")])[0], root) == parts(now, root)


def test_a_task_is_looked_up_once_with_the_class_names_of_the_run(finished, tmp_path, caplog):
    _, done = finished
    root = draw_folder(tmp_path / "circle").parent
    for number, folder in enumerate(sorted((tmp_path / "circle").iterdir())):
        folder.rename(tmp_path / "circle" / str(number))
    names = ["none", "one", "two"]
    trained = replace(done.finetuned, config={**done.finetuned.config, "task": f"{root}/circle", "classnames": names})
    (task, again) = evaluation_tasks([trained], [f"{root}/circle", "Shapes", f"{root}/circle/"])
    assert (task.dataset.classes, again.name) == (tuple(names), "Shapes")
    assert "the classes are numbers" not in caplog.text

"""Ask checkpoints: the answers of evaluation, image by image, with the head that is asked for."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import wisepatch as wp
from tests.samples import broken_png, recipes, save_small_vit
from wisepatch.datasets.any_images import AnyImages
from wisepatch.errors import ModelError, StoreError, UnknownNameError, UsageError
from wisepatch.evaluation.answers import answers
from wisepatch.evaluation.prediction import predict_many
from wisepatch.models.clip import EMBEDDED
from wisepatch.workflows.predicting import asked_task

DEMO = {"model": "demo", "pretrained": ""}


def photos(shapes):
    return sorted(str(path) for path in shapes.rglob("*.png"))


def save_probe(store, classes=("circle", "square", "triangle"), rows=None):
    tensors = {name: tensor.float() for name, tensor in load_file(EMBEDDED / "open_clip_model.safetensors").items()}
    weight = torch.randn(rows or len(classes), 128, generator=torch.Generator().manual_seed(0))
    tensors |= {"classifier.weight": 20 * weight, "classifier.bias": torch.arange(float(len(weight)))}
    head = {"task": "things", "classes": list(classes)}
    return store.save(tensors, kind="finetuned", name="probe", model=DEMO, training="wise-ft", head=head), tensors


def test_answers_are_those_of_evaluation(run_store, shapes, tmp_path):
    mixes = recipes(run_store, [0.25, 0.75])
    task = wp.find_task(f"{shapes}@all")
    (expected,) = predict_many(mixes, [task], run_store, tmp_path, settings=wp.EvalConfig(again=True))
    given = wp.predict(mixes, expected.image_ids, task=task, store=run_store, top=2)
    assert [answer.index for answer in given[:4]] == [0, 0, 1, 1]
    for answer in given:
        row = [mix.id for mix in mixes].index(answer.checkpoint.id)
        assert answer.classes[0] == task.dataset.classes[expected.predicted[row, answer.index]]
        assert answer.probabilities[0] == pytest.approx(expected.confidence[row, answer.index], abs=1e-6)
        assert answer.probabilities[0] >= answer.probabilities[1]
        assert len(answer.classes) == 2


def test_images_that_cannot_be_read_are_named_and_the_rest_is_answered(run_store, shapes, tmp_path):
    broken_png(tmp_path / "broken.png")
    one, two = photos(shapes)[:2]
    given = wp.predict("finetuned", [one, tmp_path / "broken.png", Path(two)], store=run_store, top=9)
    assert [bool(answer.problem) for answer in given] == [False, True, False]
    assert given[1].classes == ()
    assert len(given[0].classes) == 3
    assert sum(given[0].probabilities) == pytest.approx(1)
    (alone,) = wp.predict("finetuned", two, store=str(run_store.root), top=9)
    assert (given[2].image, given[2].classes) == (two, alone.classes)
    assert given[2].probabilities == pytest.approx(alone.probabilities, abs=1e-6)


def test_trained_head_answers_where_its_classes_are_asked_for(tmp_path, shapes):
    store = wp.Store(tmp_path / "store")
    probe, tensors = save_probe(store)
    clip = wp.load_clip(wp.ModelConfig("demo", ""), tensors)
    with torch.no_grad():
        opened = AnyImages(photos(shapes)[:1], clip.transform)
        features = torch.nn.functional.normalize(clip.model.encode_image(opened[0][0][None]), dim=-1)
    logits = features @ tensors["classifier.weight"].T + tensors["classifier.bias"]
    for names in (None, ("circle", "square", "triangle"), ("triangle", "circle", "square"), ("triangle", "circle")):
        (answer,) = wp.predict(probe, photos(shapes)[0], classnames=names, store=store)
        kept = [probe.head["classes"].index(name) for name in names or probe.head["classes"]]
        wanted = dict(zip(names or probe.head["classes"], logits[0, kept].softmax(0).tolist(), strict=True))
        assert dict(zip(answer.classes, answer.probabilities, strict=True)) == pytest.approx(wanted, abs=1e-5)
    (other,) = wp.predict(probe, photos(shapes)[0], classnames=("star", "circle"), store=store)
    assert set(other.classes) == {"star", "circle"}
    restricted = asked_task([probe], None, ("triangle", "circle")).dataset
    assert restricted.head_names == ("circle", "square", "triangle")


def test_checkpoints_of_different_models_answer_side_by_side(tmp_path, shapes):
    store = wp.Store(tmp_path / "store")
    probe, _ = save_probe(store)
    save_small_vit(store, tmp_path / "vit", 8)
    names, images = ("star", "circle"), photos(shapes)[:3]
    both = wp.predict([probe, "start"], images, classnames=names, store=store)
    for place, model in enumerate((probe, "start")):
        assert both[place::2] == wp.predict(model, images, classnames=names, store=store)


def test_what_a_checkpoint_is_asked_without_a_word(run_store, tmp_path):
    finetuned = run_store.find("finetuned")
    assert asked_task([finetuned]).dataset.classes == ("circle", "square", "triangle")
    with pytest.raises(UsageError, match="was not trained on a task") as caught:
        asked_task([run_store.find("zeroshot")])
    assert "--classnames" in caught.value.hint
    moved = run_store.save(
        run_store.read(finetuned), kind="finetuned", name="moved", model=DEMO, config={"task": str(tmp_path / "gone")}
    )
    with pytest.raises(wp.WisepatchError, match="there is no folder or CSV") as caught:
        asked_task([moved])
    assert "--classnames" in caught.value.hint
    with pytest.raises(UsageError, match="the class name 'cat' is given twice"):
        asked_task([finetuned], None, ("cat", "dog", "cat"))
    with pytest.raises(UnknownNameError, match="unknown task 'Shapse'"):
        asked_task([finetuned], "Shapse")
    with pytest.raises(UsageError, match="--top 0"):
        wp.predict(finetuned, [], top=0, store=run_store)


def test_head_whose_classes_do_not_match_is_an_error(tmp_path, shapes):
    store = wp.Store(tmp_path / "store")
    probe, _ = save_probe(store, rows=4)
    with pytest.raises(StoreError, match=r"the trained head of probe .* has 4 classes, and 3 names of classes"):
        wp.predict(probe, photos(shapes)[:1], store=store)


def test_weights_that_give_no_numbers_are_an_error(run_store, shapes, monkeypatch):
    monkeypatch.setattr("wisepatch.models.tower.features", lambda _, images: torch.full((len(images), 128), torch.nan))
    with pytest.raises(ModelError, match="gives NaN for 2 of 2 images"):
        wp.predict("finetuned", photos(shapes)[:2], store=run_store)


def test_first_answers_come_before_the_last_images_are_read(run_store, shapes, monkeypatch):
    monkeypatch.setattr("wisepatch.evaluation.passes.IMAGES_PER_MIX", 2)
    read = []
    monkeypatch.setattr(
        "wisepatch.datasets.any_images.read_rgb", lambda path, read_rgb=AnyImages.open.__globals__["read_rgb"], **how: (
            read.append(path), read_rgb(path, **how))[1],
    )  # fmt: skip
    settings = wp.EvalConfig(batch_size=2, workers=0)
    finetuned = run_store.find("finetuned")
    images = AnyImages(photos(shapes))
    stream = answers([finetuned], images, asked_task([finetuned]), run_store, settings=settings)
    next(stream)
    assert len(read) < len(images)
    assert len(list(stream)) == len(images) - 1

"""Typographic attacks as tasks, ``typo:NAME``: their names, texts, labels, seeds and epochs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.samples import draw_folder, write_mnist
from wisepatch import Dataset, find_task
from wisepatch.datasets.loading import checked, loader
from wisepatch.datasets.names import names
from wisepatch.datasets.samples import set_epoch
from wisepatch.datasets.typography import RANDOM_WORDS, AttackedSamples, Style, attacked
from wisepatch.errors import DataError, UnknownNameError, UsageError


def flat(width, height):
    return Image.new("RGB", (width, height), "grey")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"low": 0.5, "high": 0.2}, "letters of 0.5 to 0.2 of the image are not possible"),
        ({"low": 0}, "letters of 0 to 0.4 of the image are not possible"),
        ({"high": 1.5}, "letters of 0.2 to 1.5 of the image are not possible"),
        ({"low": float("nan")}, "letters of nan to 0.4 of the image are not possible"),
        ({"text": "  "}, "there is no text to write"),
        ({"fonts": ()}, "there is no font to write with"),
        ({"fonts": ("nowhere.ttf",)}, "the font nowhere.ttf cannot be used: it does not exist"),
    ],
)
def test_style_that_is_none_says_so(wrong, message):
    with pytest.raises(UsageError) as caught:
        Style(**wrong)
    assert caught.value.message == message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("spec", "found", "split"),
    [
        ("typo:Shapes", "typo:Shapes", None),
        ("TYPO:shapes", "typo:Shapes", None),
        ("typo:ShapesVal", "typo:Shapes@val", "val"),
        ("typo:Shapes@train", "typo:Shapes@train", "train"),
    ],
)
def test_attacked_task_is_found_by_every_spelling(spec, found, split):
    task = find_task(spec)
    assert (task.spec, task.split, task.name, task.base_spec) == (found, split, "typo:Shapes", "typo:Shapes")
    assert find_task(task.spec) == task
    clean = find_task("Shapes").dataset
    assert task.dataset.classes == clean.classes
    assert task.dataset.templates == clean.templates
    assert task.dataset.splits == clean.splits
    assert task.dataset.counts == clean.counts
    assert task.dataset.extra_metrics == (*clean.extra_metrics, "attack_success", "neither")


def test_attacked_folder_and_csv_are_tasks(shapes, tmp_path):
    lines = [f"shapes/{c}/{i}.png,{c},{s}" for c in ("circle", "star") for i, s in enumerate(("train", "val", "test"))]
    (shapes / "square").rename(shapes / "star")
    (tmp_path / "few.csv").write_text("\n".join(["path,label,split", *lines]))
    for spec, name, size in ((shapes, "typo:shapes", 11), (tmp_path / "few.csv", "typo:few", 2)):
        task = find_task(f"typo:{spec}@train")
        assert (task.name, task.spec, task.split) == (name, f"typo:{spec}@train", "train")
        opened, again = (t.dataset.split("train", tmp_path) for t in (task, find_task(task.spec)))
        assert len(opened) == size
        assert opened[0][0].size == (64, 64)
        assert opened[0][0].tobytes() == again[0][0].tobytes()


@pytest.mark.parametrize("scheme", ["typo:", "corrupt:"])
def test_images_go_by_the_names_of_the_files_that_they_are_made_of(shapes, tmp_path, scheme):
    clean, made = (find_task(f"{word}{shapes}").dataset.split("all", tmp_path) for word in ("", scheme))
    assert made.image_ids() == clean.image_ids()
    assert made.image_ids()[0].endswith(".png")


def test_folder_below_one_with_an_at_sign_in_its_name_names_no_split(tmp_path, monkeypatch):
    draw_folder(tmp_path / "mail@home" / "shapes")
    monkeypatch.chdir(tmp_path)
    assert find_task("typo:mail@home/shapes").split is None
    assert find_task("typo:mail@home/shapes@val").split == "val"


def test_scheme_of_a_plugin_is_asked_for_the_inner_name(monkeypatch):
    from wisepatch import plugins, task_specs

    asked = []

    def find_dataset(name):
        asked.append(name)
        return replace(find_task("Shapes").dataset, name=name, metric="macro_f1") if name == "hf:owner/name" else None

    known = replace(plugins.registry(), plugins=(plugins.Plugin("hub", "hub 1.0", {}, find_dataset),))
    monkeypatch.setattr(task_specs, "registry", lambda: known)
    task = find_task("typo:hf:owner/name@val")
    assert asked == ["hf:owner/name"]
    assert (task.name, task.spec, task.split) == ("typo:hf:owner/name", "typo:hf:owner/name@val", "val")
    with pytest.raises(DataError, match="no plugin knows what hf: means in the task 'hf:other'"):
        find_task("typo:hf:other")


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("typo:Shpes", UnknownNameError, "unknown task 'Shpes'; did you mean Shapes"),
        ("typo:Shapes@vel", UsageError, "unknown split 'vel' in task 'typo:Shapes@vel'"),
        ("typo:", UsageError, "the task 'typo:' names nothing to write on"),
        ("typo:typo:Shapes", UsageError, "the images of typo:Shapes are written on already"),
        ("typo:no/where", DataError, "there is no folder or CSV no/where"),
    ],
)
def test_attacked_task_that_is_none_says_so(spec, kind, message):
    with pytest.raises(kind) as caught:
        find_task(spec)
    assert message in caught.value.message


def test_metric_and_further_metrics_of_the_task_are_kept_and_published_accuracies_are_not():
    mtsd, gtsrb = find_task("typo:MTSD").dataset, find_task("typo:GTSRB").dataset
    assert mtsd.metric == find_task("MTSD").dataset.metric
    assert gtsrb.layouts == find_task("GTSRB").dataset.layouts
    plain = replace(find_task("Shapes").dataset, metric="macro_f1", extra_metrics=("top1", "mean_per_class"))
    assert attacked(plain).metric == "macro_f1"
    assert attacked(plain).extra_metrics == ("top1", "mean_per_class", "attack_success", "neither")
    assert find_task("GTSRB").dataset.zeroshot
    assert not gtsrb.zeroshot


def test_task_under_another_head_keeps_it_and_writes_names_of_its_own_classes(tmp_path):
    folders, indices = names("ImageNet folders"), names("ImageNetA indices")
    for index in indices[:3]:
        draw_folder(tmp_path / "imagenet-a", 1, ("star",))
        (tmp_path / "imagenet-a" / "star").rename(tmp_path / "imagenet-a" / folders[index])
    task = find_task("typo:ImageNetA")
    assert task.dataset.label_map == find_task("ImageNetA").dataset.label_map
    assert task.dataset.head_names == find_task("ImageNet").dataset.classes
    opened = task.dataset.split("test", tmp_path)
    texts = [opened.samples.written(i)[2] for i in range(3)]
    assert set(texts) <= set(task.dataset.classes)
    assert [task.dataset.classes[w] for w in opened.annotations.written] == texts


def test_other_class_names_are_what_is_written(shapes, tmp_path):
    renamed = find_task(f"typo:{shapes}", ["disc", "box", "wedge"], ["a {}"])
    opened = renamed.dataset.split("train", tmp_path)
    assert renamed.dataset.templates == ("a {}",)
    assert {written(opened, i) for i in range(12)} == {
        "disc", "box", "wedge",
    }  # fmt: skip


def written(opened, index):
    from wisepatch.workflows.typographic_attacks import written as look

    return look(opened.samples, index)[2]


def test_labels_of_the_attacked_split_are_those_of_the_clean_one(data):
    write_mnist(data)
    for name in ("Shapes", "MNIST"):
        for split in ("val", "test"):
            clean, struck = (find_task(spec).dataset.split(split, data) for spec in (name, f"typo:{name}"))
            assert len(struck) == len(clean)
            for index in range(min(len(clean), 12)):
                (image, label), (plain, own) = struck[index], clean[index]
                assert label == own
                assert image.size == plain.size
                assert image.tobytes() != plain.tobytes()


def test_transform_follows_the_writing(data):
    opened = find_task("typo:Shapes").dataset.split("test", data, np.asarray)
    plain = find_task("typo:Shapes").dataset.split("test", data)
    assert np.array_equal(opened[3][0], np.asarray(plain[3][0]))


class Listed:
    """A dataset of plain images; with ``known`` it tells labels without decoding."""

    def __init__(self, labels, known=False):
        self._all = labels
        if known:
            self.labels = labels

    def __len__(self):
        return len(self._all)

    def __getitem__(self, index):
        return flat(96, 96), self._all[index]


@settings(max_examples=150)
@given(
    st.lists(st.text(st.sampled_from("abAB "), min_size=1, max_size=3).filter(str.strip), min_size=2, max_size=6),
    st.sampled_from(["wrong", "random-word", "ab", " Ab"]),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_no_image_is_given_its_own_class_name(classes, text, seed, known):
    folded = [" ".join(name.split()).casefold() for name in classes]
    assume(len(set(folded)) > 1)
    labels = list(range(len(classes))) * 3
    dataset = Dataset("few", tuple(classes), lambda split, root, transform: Listed(labels, known), splits=("test",))
    opened = attacked(dataset, Style(text, seed=seed)).split("test", None)
    written = opened.samples.samples
    texts = [written._text(label, written._generator(i)) for i, label in enumerate(labels)]
    for label, said in zip(labels, texts, strict=True):
        assert " ".join(said.split()).casefold() != folded[label]
    # The written class is the first of that name, in any case, or none.
    expected = [folded.index(" ".join(t.split()).casefold()) if " ".join(t.split()).casefold() in folded else -1
                for t in texts]  # fmt: skip
    assert list(opened.annotations.written) == expected


def test_every_wrong_name_is_written_and_words_and_own_text_too():
    dataset = find_task("Shapes").dataset
    texts = {written(attacked(dataset, Style(seed=s)).split("test", None), 0) for s in range(80)}
    assert texts == set(dataset.classes[1:])
    words = attacked(dataset, Style("random-word")).split("test", None)
    assert {written(words, i) for i in range(30)} <= set(RANDOM_WORDS)
    assert len({written(words, i) for i in range(30)}) > 10
    assert set(words.annotations.written) == {-1}
    own = attacked(dataset, Style("Heart")).split("test", None)
    hearts = dataset.classes.index("heart")
    for index in range(20):
        assert (written(own, index) == "Heart") == (index % 10 != hearts)
        assert (own.annotations.written[index] == hearts) == (index % 10 != hearts)


def test_task_with_one_class_cannot_be_attacked_with_it():
    dataset = Dataset("one", ("dog", "Dog "), lambda *_: Listed([0]))
    for text in ("wrong", "DOG"):
        with pytest.raises(UsageError, match="one has one class, and an attack needs the name of another"):
            attacked(dataset, Style(text))
    assert attacked(dataset, Style("cat")).split("test", None)[0][1] == 0


def test_image_on_which_a_text_does_not_fit_is_named():
    class Small(Listed):
        def __getitem__(self, index):
            return flat(16, 16), 0

    dataset = Dataset("tiny", ("dog", "hippopotamus"), lambda *_: Small([0] * 4))
    with pytest.raises(DataError, match="image 2: 'hippopotamus' fits into 16 x 16 pixels at no size") as caught:
        attacked(dataset).split("test", None)[2]
    assert caught.value.hint == "take larger images, or a shorter text"


@pytest.mark.parametrize(
    ("text", "lacking"),
    [("wrong", "dog 🐕"), ("cat", "dog 🐕"), ("🐈", "🐈"), ("dog 🐕", "dog 🐕"), ("mouse", ""), ("random-word", "")],
)
def test_a_text_that_no_font_has_is_said_when_images_are_opened(text, lacking):
    dataset = attacked(Dataset("pets", ("cat", "dog 🐕"), lambda *_: Listed([0] * 4)), Style(text))
    if not lacking:
        assert len(dataset.split("test", None)) == 4
        return
    with pytest.raises(DataError) as caught:
        dataset.split("test", None)
    assert caught.value.message == f"typo:pets: no font here has all characters of {lacking!r}"
    assert "--font FILE" in caught.value.hint


# Seeds.


def pixels(spec="typo:Shapes", split="test", indices=range(6), style=None, epoch=None, data=None):
    dataset = find_task(spec).dataset if style is None else attacked(find_task(spec).dataset, style)
    opened = dataset.split(split, data)
    if epoch is not None:
        set_epoch(opened, epoch)
    return {i: opened[i][0].tobytes() for i in indices}


def test_writing_follows_from_seed_and_index_alone():
    once = pixels()
    assert pixels(indices=reversed(range(6))) == once  # in any order
    assert pixels(indices=[4]) == {4: once[4]}
    assert pixels("Shapes", style=Style()) == once
    other = pixels("Shapes", style=Style(seed=1))
    assert all(other[i] != once[i] for i in once)


def test_splits_are_written_on_with_seeds_of_their_own():
    texts = {
        split: [written(find_task("typo:Shapes").dataset.split(split, None), i) for i in range(60)]
        for split in ("train", "val", "test")
    }
    assert texts["train"] != texts["val"] != texts["test"] != texts["train"]


def test_epochs_write_anew_and_the_same_epoch_writes_the_same():
    fixed, first, second = (pixels(split="train", epoch=e) for e in (None, 0, 1))
    assert pixels(split="train", epoch=1) == second  # as after a resume
    for index in fixed:
        assert len({fixed[index], first[index], second[index]}) == 3
    opened = find_task("typo:Shapes").dataset.split("train", None)
    texts = []
    for epoch in range(3):
        set_epoch(opened, epoch)
        texts.append([opened.samples.written(i)[2] for i in range(40)])
        assert [opened.classes[w] for w in opened.annotations.written[:40]] == texts[-1]
    assert texts[0] != texts[1] != texts[2] != texts[0]


def test_epoch_reaches_through_a_cut_training_split_and_leaves_validation_alone(data):
    write_mnist(data)
    train, val = (find_task("typo:MNIST").dataset.split(s, data) for s in ("train", "val"))
    before = [val[i][0].tobytes() for i in range(len(val))], [train[i][0].tobytes() for i in range(4)]
    set_epoch(train, 3)
    assert [val[i][0].tobytes() for i in range(len(val))] == before[0]
    assert all(train[i][0].tobytes() != before[1][i] for i in range(4))


def test_epoch_is_handed_on_to_images_that_draw_anew_themselves():
    class Anew(Listed):
        epoch = None

        def set_epoch(self, epoch):
            self.epoch = epoch

    inner = Anew([0, 1])
    set_epoch(AttackedSamples(inner, ("a", "b"), "train", Style()), 4)
    assert inner.epoch == 4
    set_epoch(Listed([0]), 1)  # others do not mind


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_sees_the_epoch_also_in_a_worker(workers):
    from wisepatch.datasets.samples import Subset

    opened = find_task("typo:Shapes").dataset.split("train", None, lambda image: np.asarray(image).copy())
    few = Subset(opened.samples, range(8))
    batches = loader(few, 4, workers=workers)
    seen = {}
    for epoch in (0, 1, 0):
        set_epoch(few, epoch)
        found = b"".join(checked(batch)[0].numpy().tobytes() for batch in batches)
        assert seen.setdefault(epoch, found) == found
        assert found == b"".join(pixels(split="train", indices=range(8), epoch=epoch).values())
    assert seen[0] != seen[1]


def test_fingerprint_tells_styles_and_images_apart(shapes, tmp_path):
    def print_of(style):
        return attacked(find_task(str(shapes)).dataset, style).split("train", tmp_path).fingerprint()

    assert print_of(Style()) == print_of(Style())
    assert len({print_of(Style()), print_of(Style(seed=1)), print_of(Style("cat")), print_of(Style(low=0.1))}) == 4
    before = print_of(Style())
    next(shapes.rglob("*.png")).touch()
    for path in shapes.rglob("*.png"):
        path.touch()
    assert print_of(Style()) != before


def test_context_of_the_images_is_kept():
    from wisepatch.datasets.samples import Annotations

    samples = Listed([0, 1, 0])
    samples.annotations = Annotations(groups=[0, 1, 1], group_names=("near", "far"))
    dataset = attacked(Dataset("g", ("dog", "cat"), lambda *_: samples, extra_metrics=("worst_group",)))
    opened = dataset.split("test", None)
    assert opened.annotations.groups == [0, 1, 1]
    assert list(opened.annotations.written) == [1, 0, 1]
    assert opened.annotations.written[1:] == [0, 1]
    assert opened.annotations.of([2, 1]).written == [1, 0]
    assert dataset.extra_metrics == ("worst_group", "attack_success", "neither")

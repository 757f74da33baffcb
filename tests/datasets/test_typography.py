"""Typographic attacks as datasets: what is drawn, the tasks typo:NAME, names of files, folders in the published convention."""

import csv
import io
import shutil
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tests.samples import draw_folder, write_mnist
from wisepatch import Dataset, find_task
from wisepatch.datasets import text_overlay as overlays
from wisepatch.datasets.attacked_folder import COLUMNS, MOST_BYTES, attacked_folder, file_name, parse_name
from wisepatch.datasets.base import set_epoch
from wisepatch.datasets.contact_sheet import CELL, LINE, MARGIN, contact_sheet
from wisepatch.datasets.fonts import FONTS, font
from wisepatch.datasets.loading import checked, loader
from wisepatch.datasets.names import names
from wisepatch.datasets.text_overlay import FAR, SMALLEST, overlay
from wisepatch.datasets.typography import RANDOM_WORDS, AttackedSamples, Style, attacked
from wisepatch.errors import DataError, UnknownNameError, UsageError

GREY = 128
WORDS = (
    "cat", "Zürich", "кошка", "naïve/é=_%", "Ääkköset", "jÿgqp|", "W", "fire-fighting aircraft", "n01440764", "A & B",
    "a photo of a very long name of a class", "Wasserkraftwerk",
)  # fmt: skip


def rng(*numbers):
    return np.random.default_rng(list(numbers))


def flat(width, height, value=GREY):
    return Image.new("RGB", (width, height), (value,) * 3)


def drawn(image, text, generator, style):
    """The attacked image, and the last text that was asked of Pillow with its face and layout."""
    asked, within = [], []
    original = ImageDraw.ImageDraw.text

    def spy(self, xy, text, fill, font, *args, **kwargs):
        if not within:  # Pillow may draw a text of several lines by drawing each
            asked.append((text, {"fill": fill, "font": font, **kwargs}))
        within.append(text)
        original(self, xy, text, fill, font, *args, **kwargs)
        within.pop()

    overlays._drawn.cache_clear()
    with patch.object(ImageDraw.ImageDraw, "text", spy):
        result = overlay(image, text, generator, style)
    return result, *asked[-1]


def outlined_alone(text, kwargs):
    """The text with its outline on a canvas far larger than it, cut to what is there: coverage 0 to 255."""
    size = kwargs["font"].size
    canvas = Image.new("L", (size * (len(text) + 12), size * 4 * (text.count("\n") + 4)))
    ImageDraw.Draw(canvas).multiline_text((size * 5, size * 5), text, **kwargs)
    canvas = canvas.filter(ImageFilter.MaxFilter(3))
    left, top, right, bottom = canvas.getbbox()
    assert left > 2
    assert top > 2
    assert right < canvas.width - 2
    assert bottom < canvas.height - 2
    return np.asarray(canvas.crop(canvas.getbbox()))


def place_of(changed, alone):
    """Where inside the picture all of the text shows, and nothing but it: ``(top, left)``, or ``None``."""
    height, width = alone.shape
    rows, columns = changed.shape
    strong, faint = alone > 40, alone > 0
    first = np.argwhere(changed).min(0)
    for top in range(max(first[0] - 2, 0), min(first[0] + 3, rows - height + 1)):
        for left in range(max(first[1] - 2, 0), min(first[1] + 3, columns - width + 1)):
            inside = changed[top : top + height, left : left + width]
            if (inside >= strong).all() and (inside <= faint).all() and inside.sum() == changed.sum():
                return top, left
    return None


@settings(max_examples=120)
@given(
    st.integers(8, 300), st.integers(8, 300), st.sampled_from(FONTS), st.sampled_from(WORDS),
    st.sampled_from([(0.2, 0.4), (0.09, 0.18), (0.8, 1.0)]), st.integers(0, 2**32),
)  # fmt: skip
@example(8, 8, "DejaVuSans-Bold", "W", (0.8, 1.0), 1)
@example(300, 9, "", "cat", (0.2, 0.4), 0)
@example(64, 64, "DejaVuSerif-Bold", "jÿgqp|", (0.8, 1.0), 3)
def test_text_is_never_clipped(width, height, face, word, sizes, seed):
    assume(overlays.has_all(face, word))
    style = Style(low=sizes[0], high=sizes[1], fonts=(face,))
    image = flat(width, height)
    try:
        result, text, kwargs = drawn(image, word, rng(seed), style)
    except DataError as error:
        said = error.message
    else:
        said = ""
    if said:
        assert said == f"{word!r} fits into {width} x {height} pixels at no size from {SMALLEST} pixels up"
        pieces = word.replace("-", "- ").replace("/", "/ ").split()
        least = overlays._face(face, SMALLEST)
        assert (
            max(map(least.getlength, pieces)) + 4 >= width or 7 * len(pieces) + 4 >= height
        )  # not even one piece a line
        return
    assert "".join(text.split()) == "".join(word.split())  # no character is lost in wrapping
    assert kwargs["font"].size >= SMALLEST
    assert result.size == image.size
    assert result.mode == "RGB"
    assert np.array_equal(
        np.asarray(image), np.asarray(flat(width, height))
    )  # the image that was given stays as it was
    assert place_of((np.asarray(result) != GREY).any(-1), outlined_alone(text, kwargs))


def test_test_of_clipping_sees_a_column_that_is_missing():
    result, text, kwargs = drawn(flat(64, 64), "cat", rng(0), Style())
    changed, alone = (np.asarray(result) != GREY).any(-1), outlined_alone(text, kwargs)
    assert place_of(changed, alone)
    for axis in (0, 1):
        for at in (np.argwhere(changed).min(0)[axis], np.argwhere(changed).max(0)[axis]):
            cut = changed.copy()
            cut[(slice(None),) * axis + (slice(at - 1, at + 2),)] = False
            assert not place_of(cut, alone)
    spilt = changed.copy()
    spilt[(~changed.any(1)).nonzero()[0][0], 0] = True
    assert not place_of(spilt, alone)


def test_marks_that_stack_above_and_below_are_not_clipped():
    stacked = "o" + "\u0302\u0323" * 12 + "k"
    style = Style(fonts=("DejaVuSans",))
    result, text, kwargs = drawn(flat(200, 200), stacked, rng(1), style)
    size = kwargs["font"].size
    canvas = Image.new("L", (60 * size, 60 * size))
    ImageDraw.Draw(canvas).multiline_text((30 * size, 30 * size), text, **kwargs)
    canvas = canvas.filter(ImageFilter.MaxFilter(3))
    assert place_of((np.asarray(result) != GREY).any(-1), np.asarray(canvas.crop(canvas.getbbox())))


@settings(max_examples=100)
@given(st.integers(8, 247), st.sampled_from(("cat", "two words")), st.integers(0, 2**32))
def test_ink_stands_out_from_what_is_under_it_and_the_outline_from_the_ink(value, word, seed):
    style = Style(low=0.4, high=0.5, fonts=("DejaVuSans-Bold",))
    result, text, kwargs = drawn(flat(96, 96, value), word, rng(seed), style)
    canvas = Image.new("L", (900, 400))
    ImageDraw.Draw(canvas).multiline_text((100, 100), text, **kwargs)
    around = canvas.filter(ImageFilter.MaxFilter(3))
    ink, edge = (np.asarray(mask.crop(around.getbbox())) for mask in (canvas, around))
    pixels = np.asarray(result).astype(float)
    top, left = place_of((pixels != value).any(-1), edge)
    inside = pixels[top : top + ink.shape[0], left : left + ink.shape[1]]
    colors, outline = np.unique(inside[ink == 255], axis=0), np.unique(inside[(edge == 255) & (ink == 0)])
    assert len(colors) == 1
    assert outline.tolist() in ([0], [255])
    assert abs(colors.mean() - value) > FAR - 1
    assert abs(colors.mean() - outline[0]) >= 127  # whichever of black and white is further


def test_letters_are_as_high_as_asked():
    for low, high in ((0.1, 0.1), (0.3, 0.3)):
        sizes = {drawn(flat(200, 100), "cat", rng(i), Style(low=low, high=high))[2]["font"].size for i in range(20)}
        assert sizes == {round(low * 100)}
    sizes = {drawn(flat(200, 100), "cat", rng(i), Style(low=0.1, high=0.3))[2]["font"].size for i in range(60)}
    assert min(sizes) in range(10, 13)
    assert max(sizes) in range(28, 31)


def test_faces_places_sizes_and_colours_vary_with_the_image():
    results = [drawn(flat(128, 128), "cat", rng(i), Style()) for i in range(80)]
    assert {result[2]["font"].getname() for result in results} == {font(name, 12).getname() for name in FONTS}
    corners = {tuple(np.argwhere((np.asarray(r[0]) != GREY).any(-1)).min(0)) for r in results}
    assert len(corners) > 60
    assert len({r[0].tobytes() for r in results}) == 80


def test_text_that_is_too_wide_is_wrapped_at_spaces_hyphens_and_slashes_then_shrunk():
    style = Style(low=0.2, high=0.2, fonts=("DejaVuSans",))
    _, text, kwargs = drawn(flat(64, 64), "red and white circle", rng(0), style)
    assert text.split("\n")[0] in ("red and", "red")
    assert text.count("\n") >= 2
    assert kwargs["font"].size == 13
    _, text, _ = drawn(flat(64, 64), "twenty-four/seven", rng(0), style)
    assert text in ("twenty-\nfour/\nseven", "twenty-\nfour/seven")
    _, text, kwargs = drawn(flat(64, 64), "Wasserkraftwerk", rng(0), style)
    assert text == "Wasserkraftwerk"
    assert kwargs["font"].size < 13
    _, text, _ = drawn(flat(300, 300), "a - b -c and/or", rng(0), Style(low=0.05, high=0.05))
    assert text == "a - b -c and/or"  # nothing changes where there is room


def test_long_names_of_traffic_signs_fit_on_their_small_images():
    for label, name in enumerate(find_task("GTSRB").dataset.classes):
        for size in (64, 48):
            _, text, kwargs = drawn(flat(size, size), name, rng(label, size), Style())
            assert "".join(text.split()) == "".join(name.split())
            assert kwargs["font"].size >= SMALLEST
    assert max(map(len, find_task("GTSRB").dataset.classes)) > 60


def test_text_that_fits_at_no_size_says_so():
    with pytest.raises(DataError) as caught:
        overlay(flat(20, 20), "Donaudampfschifffahrtsgesellschaft", rng(0), Style())
    assert caught.value.message == (
        "'Donaudampfschifffahrtsgesellschaft' fits into 20 x 20 pixels at no size from 5 pixels up"
    )
    assert caught.value.hint == "take larger images, or a shorter text"
    for size in ((1, 1), (2, 300), (300, 2)):
        with pytest.raises(DataError, match=f"'i' fits into {size[0]} x {size[1]} pixels at no size"):
            overlay(flat(*size), "i", rng(0), Style())


def test_characters_that_no_face_has_are_named():
    for text in ("🐈", "cat 🐈", "\ud55c\uad6d", "a\x07b"):
        with pytest.raises(DataError) as caught:
            overlay(flat(200, 200), text, rng(0), Style())
        assert caught.value.message == f"no font here has all characters of {text!r}"
        assert "--font FILE" in caught.value.hint


def test_only_faces_that_have_all_characters_are_taken():
    for word, without in (("Zürich", "Pillow's"), ("кошка", "Pillow's"), ("naïve/é=_%", "Pillow's")):
        faces = {drawn(flat(200, 200), word, rng(i), Style())[2]["font"].getname() for i in range(40)}
        assert len(faces) > 3
        assert font("", 12).getname() not in faces, without


def test_text_without_ink_says_so():
    with pytest.raises(DataError, match="has nothing that could be drawn"):
        overlay(flat(50, 50), "\u200b", rng(0), Style(fonts=("DejaVuSans",)))


def test_font_file_is_used(tmp_path):
    shutil.copy(font("DejaVuSansMono", 12).path, tmp_path / "own.ttf")
    style = Style(fonts=(str(tmp_path / "own.ttf"),))
    _, _, kwargs = drawn(flat(64, 64), "Zürich", rng(0), style)
    assert kwargs["font"].path == str(tmp_path / "own.ttf")
    assert kwargs["font"].getname() == ImageFont.truetype(font("DejaVuSansMono", 12).path, 12).getname()


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


def test_file_that_is_no_font_says_so(tmp_path):
    (tmp_path / "letter.ttf").write_text("Dear font")
    for path in (tmp_path / "letter.ttf", tmp_path):
        with pytest.raises(
            UsageError, match=r"cannot be used: it is no font that FreeType draws at any size"
        ) as caught:
            Style(fonts=(str(path),))
        assert str(path) in caught.value.message
        assert caught.value.hint == "give a .ttf or .otf file"


# The tasks typo:NAME.


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
    for spec, name, size in ((shapes, "typo:shapes", 12), (tmp_path / "few.csv", "typo:few", 2)):
        task = find_task(f"typo:{spec}@train")
        assert (task.name, task.spec, task.split) == (name, f"typo:{spec}@train", "train")
        opened, again = (t.dataset.split("train", tmp_path) for t in (task, find_task(task.spec)))
        assert len(opened) == size
        assert opened[0][0].size == (64, 64)
        assert opened[0][0].tobytes() == again[0][0].tobytes()


def test_folder_below_one_with_an_at_sign_in_its_name_names_no_split(tmp_path, monkeypatch):
    draw_folder(tmp_path / "mail@home" / "shapes")
    monkeypatch.chdir(tmp_path)
    assert find_task("typo:mail@home/shapes").split is None
    assert find_task("typo:mail@home/shapes@val").split == "val"


def test_scheme_of_a_plugin_is_asked_for_the_inner_name(monkeypatch):
    from wisepatch import plugins

    asked = []

    def find_dataset(name):
        asked.append(name)
        return replace(find_task("Shapes").dataset, name=name, metric="macro_f1") if name == "hf:owner/name" else None

    known = plugins.registry()._replace(finders=(("a plugin", find_dataset),))
    monkeypatch.setattr(plugins, "registry", lambda: known)
    task = find_task("typo:hf:owner/name@val")
    assert asked == ["hf:owner/name"]
    assert (task.name, task.spec, task.split) == ("typo:hf:owner/name", "typo:hf:owner/name@val", "val")
    with pytest.raises(DataError, match="no plugin knows what hf: means in the task 'hf:other'"):
        find_task("typo:hf:other")


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("typo:Shpes", UnknownNameError, "unknown task 'Shpes'; did you mean Shapes"),
        ("typo:Shapes@vel", UsageError, "unknown split 'vel' in task 'Shapes@vel'"),
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
    texts = [opened.samples._text(label, opened.samples._generator(i)) for i, label in enumerate(labels)]
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
    from wisepatch.datasets.base import Subset

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
    from wisepatch.datasets.base import Annotations

    samples = Listed([0, 1, 0])
    samples.annotations = Annotations(groups=[0, 1, 1], group_names=("near", "far"))
    dataset = attacked(Dataset("g", ("dog", "cat"), lambda *_: samples, extra_metrics=("worst_group",)))
    opened = dataset.split("test", None)
    assert opened.annotations.groups == [0, 1, 1]
    assert list(opened.annotations.written) == [1, 0, 1]
    assert opened.annotations.written[1:] == [0, 1]
    assert opened.annotations.of([2, 1]).written == [1, 0]
    assert dataset.extra_metrics == ("worst_group", "attack_success", "neither")


# Names of files, and folders in the published convention.

ODD = (
    "dog", "hot_dog", "a=b", "and/or", "a_text=b", "label=x", "50%", "%3D", "Zürich", "кошка", "🐈", 'q"q', "x_id=3", "..",
    " a ", "a\nb",
)  # fmt: skip


@settings(max_examples=400)
@given(st.text(min_size=1) | st.sampled_from(ODD), st.text(min_size=1) | st.sampled_from(ODD), st.booleans())
@example("x" * (MOST_BYTES - 1) + "=", "x" * (MOST_BYTES - 2) + "=", False)  # cut within the escape of =
@example("é" * MOST_BYTES, "x" + "é" * MOST_BYTES, True)
def test_names_of_files_are_reversible_and_names_on_every_file_system(label, text, twice):
    taken = set()
    name = file_name(label, text, 0, taken)
    if twice:
        name = file_name(label, text, 123456, taken)
        assert name.endswith("_id=123456.png")
    assert not set(name) & set('/\\:*?"<>|\0\n')
    assert len(name.encode()) <= 255
    assert name.startswith("label=")
    found = parse_name(name.removesuffix(".png"))
    for kept, given_ in zip(found, (label, text), strict=True):
        if len(given_.encode()) * 3 <= MOST_BYTES:
            assert kept == given_
        else:
            assert given_.startswith(kept)  # cut, and never within an escape


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(("a", "A", "ß", "ss", "é", "e\u0301", "x" * 99, "x" * 98)),
                          st.sampled_from(("b", "B", "b_id=1", "b=")))))  # fmt: skip
def test_names_of_files_are_unique_in_any_case_and_form(pairs):
    import unicodedata

    taken = {"index.csv"}
    found = [file_name(label, text, number, taken) for number, (label, text) in enumerate(pairs)]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in found}) == len(found)


def photo(path, color="red"):
    Image.new("RGB", (24, 24), color).save(path)


def photos(folder, *files):
    folder.mkdir(parents=True)
    for name in files:
        photo(folder / name)
    return folder


def test_folder_of_110_photos_in_the_published_convention_is_a_task(tmp_path):
    animals = ("dog", "cat", "hot_dog", "Zürich", "bell pepper", "50% wool", "car")
    folder = tmp_path / "photos"
    folder.mkdir()
    pairs = [(a, b) for a in animals for b in animals if a != b]
    pairs = (pairs * 3)[:110]
    for number, (label, text) in enumerate(pairs):
        again = f"_id={number}" if number >= len(animals) * 6 else ""
        photo(folder / f"label={label}_text={text}{again}.{('png', 'jpg')[number % 2]}")
    (folder / ".DS_Store").write_bytes(b"")
    (folder / f"._{next(folder.iterdir()).name}").write_bytes(b"no image")
    (folder / "README.md").write_text("photos")
    task = find_task(str(folder))
    assert task.dataset.classes == ("50% wool", "bell pepper", "car", "cat", "dog", "hot dog", "Zürich")
    assert task.dataset.available_splits == ("test",)
    assert task.dataset.extra_metrics == ("attack_success", "neither")
    opened = task.dataset.split("test", tmp_path)
    assert len(opened) == 110
    found = sorted((opened.classes[opened[i][1]], opened.classes[opened.annotations.written[i]]) for i in range(110))
    assert found == sorted((a.replace("_", " "), b.replace("_", " ")) for a, b in pairs)
    with pytest.raises(UsageError, match="photos are written on already"):
        find_task(f"typo:{folder}")
    assert find_task(f"{folder}@test").spec == f"{folder}@test"
    with pytest.raises(DataError, match="has no 'val' split"):
        find_task(f"{folder}@val").dataset.split("val", tmp_path)


def test_class_names_may_be_given_and_texts_that_are_none_are_no_class(tmp_path):
    folder = photos(tmp_path / "p", "label=hot_dog_text=Cat.png", "label=cat_text=iPod.png")
    task = attacked_folder(folder, ("cat", "Hot Dog", "horse"))
    assert task.classes == ("cat", "Hot Dog", "horse")
    opened = task.split("test", tmp_path)
    assert [opened[i][1] for i in range(2)] == [0, 1]
    assert list(opened.annotations.written) == [-1, 0]
    assert find_task(str(folder), ["cat", "Hot Dog", "horse"], ["a {}"]).dataset.classes == task.classes
    with pytest.raises(UsageError) as caught:
        attacked_folder(folder, ("cat", "horse"))
    assert caught.value.message == f"1 labels of {folder} are not among the class names: hot dog"


def test_images_without_the_convention_are_named_and_counted(tmp_path):
    files = [f"IMG_{i}.jpg" for i in range(5)] + ["label=dog_text=.png", "label=dog_text=cat.png"]
    folder = photos(tmp_path / "p", *files)
    with pytest.raises(DataError) as caught:
        find_task(str(folder))
    assert caught.value.message == (
        f"6 of 7 images in {folder} are not called label=..._text=...: IMG_0.jpg, IMG_1.jpg, IMG_2.jpg, and 3 more"
    )
    assert "index.csv" in caught.value.hint


@pytest.mark.parametrize("name", ["label=a_text=b_text=c.png", "label=a_label=b_text=c.png"])
def test_names_that_can_be_read_in_two_ways_are_named(tmp_path, name):
    folder = photos(tmp_path / "p", name, "label=dog_text=cat.png")
    with pytest.raises(DataError) as caught:
        attacked_folder(folder)
    assert caught.value.message == f"the names of 1 images in {folder} can be read in two ways: {name}"
    assert "%3D" in caught.value.hint
    (folder / name).rename(folder / "label=a_text%3Db_text=c.png")  # as the hint says
    assert "a text=b" in attacked_folder(folder).classes


def test_folder_without_images_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no images") as caught:
        attacked_folder(tmp_path / "empty")
    assert "label=dog_text=cat.png" in caught.value.hint


def write_index(folder, rows, columns=("path", "label", "text")):
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    (folder / "index.csv").write_text(text.getvalue(), newline="")
    return folder


def test_index_carries_the_truth_whatever_the_files_are_called(tmp_path):
    folder = photos(tmp_path / "p", "1.png", "2.png", "label=x_text=y.png")
    odd = 'a_b, "c"\nd'
    write_index(folder, [("2.png", odd, "=_%/"), ("1.png", "=_%/", odd)])
    (folder / "index.csv").write_bytes(b"\xef\xbb\xbf" + (folder / "index.csv").read_bytes())  # as Excel writes it
    task = find_task(str(folder))
    assert task.dataset.classes == ("=_%/", odd)
    opened = task.dataset.split("test", tmp_path)
    assert [opened[i][1] for i in range(len(opened))] == [1, 0]
    assert list(opened.annotations.written) == [0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\n1.png,dog\n", "index.csv has no column text"),
        (b"image\n1.png\n", "index.csv has no column label and no column path and no column text"),
        (b"", "index.csv has no column label and no column path and no column text"),
        (b"path,label,text\n", "index.csv names no images"),
        (b"path,label,text\n1.png,dog\n", "index.csv, line 2: an empty path, label or text"),
        (b"text,label,path\ncat,dog\n", "index.csv, line 2: an empty path, label or text"),
        (b"path,label,text\n1.png,,cat\n", "index.csv, line 2: an empty path, label or text"),
        (b"path,label,text\n3.png,dog,cat\n4.png,dog,cat\n", "names 2 images that do not exist: 3.png, 4.png"),
        (b"path,label,text\n1.png,d\xff,cat\n", "index.csv is not a text file in UTF-8"),
        (b'path,label,text\n1.png,"' + b"d" * 200_000 + b'",cat\n', "index.csv cannot be read: field larger than"),
    ],
)
def test_index_that_does_not_fit_says_so(tmp_path, content, message):
    folder = photos(tmp_path / "p", "1.png")
    (folder / "index.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        attacked_folder(folder)
    assert message in caught.value.message
    assert caught.value.hint


def test_class_folders_beside_an_index_of_something_else_stay_class_folders(shapes):
    (shapes / "index.csv").write_text("file,split\na.png,train\n")
    assert find_task(str(shapes)).dataset.classes == ("circle", "square", "triangle")
    (shapes / "index.csv").write_bytes(b"\xff\xfe\x00")
    assert find_task(str(shapes)).dataset.family == "folder"


def test_columns_of_the_index_begin_with_those_that_are_needed():
    assert COLUMNS[:3] == ("path", "label", "text")


# Contact sheets.


def test_contact_sheet_has_the_size_of_its_cells_and_takes_any_text():
    cells = [(flat(10 * i, 300, 10 * i), ("first line", "x" * 400 + "\n" + "y" * 9)) for i in range(1, 8)]
    sheet = contact_sheet([("title " * 99, cells), ("empty", [])])
    high = CELL + 2 * LINE + 2 * MARGIN
    assert sheet.size == (5 * (CELL + MARGIN) + MARGIN, 2 * 3 * LINE + 3 * high + MARGIN)
    pixels = np.asarray(sheet)
    assert (pixels[:, -MARGIN:] == 255).all()  # nothing runs over the edge
    y, x = 2 * LINE + MARGIN, MARGIN
    assert tuple(pixels[y + CELL // 2, x + CELL // 2]) == (10, 10, 10)
    assert tuple(pixels[y + high + CELL // 2, x + CELL + MARGIN + CELL // 2]) == (70, 70, 70)

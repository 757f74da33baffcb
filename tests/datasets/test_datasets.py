"""Datasets: drawn, published, folders and CSVs; splits, classes and prompts."""

import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.samples import broken_png, draw_folder, write_idx, write_mnist
from wisepatch.datasets import base, demo, folder, loading
from wisepatch.datasets.drawn_shapes import COLORS, SHAPES, STREAMS, TEXTURES, Scene, draw, generator
from wisepatch.datasets.loading import checked, loader
from wisepatch.datasets.prompts import TEMPLATES, prompts, templates
from wisepatch.datasets.published import cifar, mnist
from wisepatch.errors import DataError, UnknownNameError, UsageError
from wisepatch.plugins import find_task, find_tasks

BENCHMARKS = json.loads((Path(__file__).parents[1] / "data" / "benchmarks.json").read_text())


def task(name):
    return find_task(name).dataset


@pytest.mark.parametrize("name", sorted(set(BENCHMARKS["templates"]) - {"FMoW", "iWildCam"}))  # those are a plugin's
def test_templates_are_those_of_the_papers_evaluations(name):
    assert list(TEMPLATES[name]) == BENCHMARKS["templates"][name]


def test_validation_is_the_papers_tenth_at_most_5000():
    images = range(60_000)
    train, val = base.cut_validation(images, "train"), base.cut_validation(images, "val")
    assert (len(train), len(val)) == (55_000, 5_000)
    assert train[0] == 36044
    first, second = torch.utils.data.random_split(images, [55_000, 5_000], torch.Generator().manual_seed(0))
    assert (train.indices, val.indices) == (list(first.indices), list(second.indices))


@pytest.mark.parametrize("size", [2, 9, 100, 1297])
def test_cut_splits_are_disjoint_and_whole(size):
    train, val = (base.cut_validation(range(size), split) for split in ("train", "val"))
    assert sorted([*train.indices, *val.indices]) == list(range(size))
    assert len(val) == max(size // 10, 1)


def test_drawn_pictures_depend_on_the_seed_alone():
    scene = Scene("zigzag", "star", "blue")
    first, second = (np.asarray(draw(scene, generator("Shapes", 2, 5))) for _ in range(2))
    assert (first == second).all()
    assert first.shape == (64, 64, 3)
    assert (first != np.asarray(draw(scene, generator("Shapes", 2, 6)))).any()


def test_streams_of_pretraining_and_tasks_never_meet():
    assert len(set(STREAMS.values())) == len(STREAMS)
    draws = {name: generator(name, 0, 0).integers(2**62) for name in STREAMS}
    assert len(set(draws.values())) == len(STREAMS)


@pytest.mark.parametrize("name", ["Shapes", "Colors", "Textures"])
def test_drawn_tasks_are_balanced_and_disjoint(name, tmp_path):
    splits = {split: task(name).split(split, tmp_path) for split in ("train", "val", "test")}
    labels = [splits["test"][i][1] for i in range(40)]
    assert labels == [i % 10 for i in range(40)]
    firsts = {split: np.asarray(samples[0][0]).tobytes() for split, samples in splits.items()}
    assert len(set(firsts.values())) == 3
    assert [len(s) for s in splits.values()] == list(demo.SIZES.values())


def test_every_shape_color_and_texture_can_be_drawn():
    for shape in SHAPES:
        for color in COLORS:
            for texture in TEXTURES:
                assert np.asarray(draw(Scene(texture, shape, color), generator("Shapes", 7))).std() > 5


def test_digits_are_scikit_learns_real_ones_split_once_and_for_all(tmp_path):
    from sklearn.datasets import load_digits

    train, val, test = (task("Digits").split(s, tmp_path) for s in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (1168, 129, 500)
    counts = np.bincount([test[i][1] for i in range(500)])
    assert counts.min() >= 48
    used = [*train.samples.indices, *val.samples.indices]
    assert sorted(train.samples.samples.indices[i] for i in used) == sorted(train.samples.samples.indices)
    assert not set(train.samples.samples.indices) & set(test.samples.indices)
    image, label = test[0]
    original = test.samples.indices[0]
    assert label == load_digits().target[original]
    scan = image.convert("L").crop((10, 10, 54, 54)).resize((8, 8), Image.Resampling.BOX)
    ink = (255 - np.asarray(scan)) / 255 * 16
    assert np.abs(ink - load_digits().images[original]).mean() < 1.5
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_mnist_is_read_from_its_idx_files(data):
    write_mnist(data, train=40, test=20)
    dataset = task("mnist")
    assert dataset.classes == tuple("0123456789")
    sizes = {split: len(dataset.split(split, data)) for split in ("train", "val", "test")}
    assert sizes == {"train": 36, "val": 4, "test": 20}
    image, label = dataset.split("test", data)[7]
    assert (image.mode, label) == ("RGB", 7)
    assert (np.asarray(image).max((1, 2)) > 0).sum() == 8


def test_fashion_mnist_has_its_own_files_and_names(data):
    write_idx(data / "FashionMNIST" / "raw", np.zeros((3, 28, 28), np.uint8), np.array([0, 9, 2], np.uint8), "t10k")
    write_idx(data / "FashionMNIST" / "raw", np.zeros((9, 28, 28), np.uint8), np.zeros(9, np.uint8), "train")
    split = task("FashionMNIST").split("test", data)
    assert [split.classes[split[i][1]] for i in range(3)] == ["T-shirt/top", "Ankle boot", "Pullover"]
    assert split.classes == mnist.CLOTHES


def cifar_batch(path, labels, key):
    """One batch as its publisher pickles it: rows of 3072 bytes, red first."""
    rows = np.zeros((len(labels), 3, 32, 32), np.uint8)
    for row, label in zip(rows, labels, strict=True):
        row[0] = label
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"data": rows.reshape(len(labels), -1), key: list(labels)}))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "below", "key", "meta_key"),
    [
        ("CIFAR10", "cifar-10-batches-py", "labels", "label_names"),
        ("CIFAR100", "cifar-100-python", "fine_labels", "fine_label_names"),
    ],
)
def test_cifar_is_read_from_its_batches(data, monkeypatch, name, below, key, meta_key):
    from torchvision import datasets

    published = getattr(datasets, name)
    lists = {}
    for which, size in (("train_list", 8), ("test_list", 4)):
        lists[which] = [
            [file, cifar_batch(data / below / file, [i % 10 for i in range(size)], key)]
            for file, _ in getattr(published, which)
        ]
        monkeypatch.setattr(published, which, lists[which])
    meta = data / below / published.meta["filename"]
    classes = cifar.TEN if name == "CIFAR10" else cifar.HUNDRED
    meta.write_bytes(pickle.dumps({meta_key: [c.replace(" ", "_") for c in classes]}))
    monkeypatch.setattr(published, "meta", published.meta | {"md5": hashlib.md5(meta.read_bytes()).hexdigest()})
    split = task(name).split("test", data)
    assert len(split) == 4
    image, label = split[3]
    assert (image.getpixel((0, 0)), label) == ((3, 0, 0), 3)
    assert [c.replace("_", " ") for c in split.samples.classes] == list(split.classes)


def test_stl10_is_read_from_its_binaries(data, monkeypatch):
    from torchvision import datasets

    below = data / "stl10_binary"
    below.mkdir()
    names = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    (below / "class_names.txt").write_text("\n".join(names))
    for which, size in (("train", 10), ("test", 5)):
        np.arange(1, size + 1).astype(np.uint8).tofile(below / f"{which}_y.bin")
        pixels = np.zeros((size, 3, 96, 96), np.uint8)
        pixels[:, 0] = 9
        pixels.tofile(below / f"{which}_X.bin")
        listed = [
            [file, hashlib.md5((below / file).read_bytes()).hexdigest() if (below / file).exists() else md5]
            for file, md5 in getattr(datasets.STL10, f"{which}_list")
        ]
        monkeypatch.setattr(datasets.STL10, f"{which}_list", [f for f in listed if (below / f[0]).exists()])
    split = task("STL10").split("test", data)
    assert (len(split), split.classes) == (5, names)
    image, label = split[2]
    assert (image.size, image.getpixel((5, 5)), label) == ((96, 96), (9, 0, 0), 2)


@pytest.mark.parametrize("below", ["", "svhn"])
def test_svhn_is_read_from_its_mat_files(data, monkeypatch, below):
    import scipy.io
    from torchvision import datasets

    (data / below).mkdir(exist_ok=True)
    for which, size in (("train", 20), ("test", 11)):
        labels = np.array([i % 10 or 10 for i in range(size)])[:, None]  # the publisher writes 10 for the digit 0
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, {"X": np.full((32, 32, 3, size), 7, np.uint8), "y": labels})
        url, file, _ = datasets.SVHN.split_list[which]
        (data / below / file).write_bytes(buffer.getvalue())
        digest = hashlib.md5(buffer.getvalue()).hexdigest()
        monkeypatch.setitem(datasets.SVHN.split_list, which, [url, file, digest])
    split = task("SVHN").split("test", data)
    assert [split[i][1] for i in range(11)] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert len(task("SVHN").split("val", data)) == 2


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "CIFAR100", "STL10", "SVHN", "FashionMNIST"])
def test_missing_data_says_where_to_get_it(data, name, monkeypatch):
    import torchvision.datasets.utils

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.utils, "_urlretrieve", refuse)
    with pytest.raises(DataError) as caught:
        task(name).split("test", data)
    assert caught.value.message.startswith(f"{name} is not below {data} and could not be downloaded: ")
    assert "http" in caught.value.hint
    assert str(data) in caught.value.hint


def test_task_spellings(shapes):
    assert find_task("mnist").name == "MNIST"
    assert (find_task("MNISTVal").name, find_task("MNISTVal").split) == ("MNIST", "val")
    assert (find_task("cifar10@test").name, find_task("cifar10@test").split) == ("CIFAR10", "test")
    assert find_task("Shapes@val").spec == "Shapes@val"
    assert find_task(str(shapes)).name == "shapes"
    assert [t.spec for t in find_tasks(["Shapes", "shapes", "Shapes@val"])] == ["Shapes", "Shapes@val"]


def test_class_folders_alone_are_split_by_seed_and_class(tmp_path):
    root = draw_folder(tmp_path / "things", per_class=10)
    (root / ".hidden").mkdir()
    dataset = task(str(root))
    assert dataset.classes == tuple(sorted(SHAPES[:3]))
    splits = {s: dataset.split(s, tmp_path) for s in dataset.available_splits}
    assert {s: len(x) for s, x in splits.items()} == {"train": 21, "val": 3, "test": 6}
    for name, each in (("test", 2), ("val", 1)):
        assert np.bincount([label for _, label in splits[name].samples.files]).tolist() == [each] * 3
    assert len({path for split in splits.values() for path, _ in split.samples.files}) == 30
    again = task(str(root)).split("test", tmp_path)
    assert again.samples.files == splits["test"].samples.files


def test_image_that_is_added_moves_few_others(tmp_path):
    root = draw_folder(tmp_path / "things", per_class=10)
    before = {p for p, _ in task(str(root)).split("test", tmp_path).samples.files}
    (root / "circle" / "99.png").write_bytes((root / "circle" / "0.png").read_bytes())
    after = {p for p, _ in task(str(root)).split("test", tmp_path).samples.files}
    assert len(before - after) <= 1
    assert {p for p in before if p.parent.name != "circle"} <= after


def test_split_folders_may_be_written_in_any_case_and_near_misses_are_named(tmp_path):
    draw_folder(tmp_path / "a" / "Train")
    draw_folder(tmp_path / "a" / "TEST")
    assert task(str(tmp_path / "a")).available_splits == ("train", "val", "test")
    draw_folder(tmp_path / "a" / "valid")
    with pytest.raises(DataError, match="a/valid is neither a split nor a class") as caught:
        task(str(tmp_path / "a"))
    assert caught.value.hint == "rename it to val"


def test_sixteen_bit_images_are_scaled_and_unknown_ranges_refused(tmp_path):
    pixels = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    Image.fromarray(pixels.astype(np.float32)).save(tmp_path / "float.tif")
    for mode in ("L", "P", "RGBA", "CMYK", "1", "LA"):
        name = "x.jpg" if mode == "CMYK" else "x.png"
        Image.new(mode, (8, 8)).save(tmp_path / name)
        assert folder.FileSamples(((tmp_path / name, 0),))[0][0].mode == "RGB"
    image, _ = folder.FileSamples(((tmp_path / "deep.png", 0),))[0]
    assert np.abs(np.asarray(image)[..., 0] - pixels / 257).max() <= 1
    with pytest.raises(DataError, match=r"float\.tif cannot be read: its pixels are of mode 'F'"):
        folder.FileSamples(((tmp_path / "float.tif", 0),))[0]


def test_folders_of_splits_are_taken_as_they_are(tmp_path):
    root = tmp_path / "things"
    for split, size in (("train", 10), ("val", 2), ("test", 3)):
        draw_folder(root / split, per_class=size, classes=("ring", "star"))
        (root / split / "ring").rename(root / split / "red_ring")
    dataset = task(str(root))
    assert dataset.classes == ("red ring", "star")
    assert {s: len(dataset.split(s, tmp_path)) for s in dataset.available_splits} == {"train": 20, "val": 4, "test": 6}
    assert dataset.splits == ("train", "val", "test")


def test_test_folder_alone_cannot_be_trained_on(tmp_path):
    draw_folder(tmp_path / "things" / "test")
    with pytest.raises(DataError, match="task 'things' has no 'train' split") as caught:
        task(str(tmp_path / "things")).split("train", tmp_path)
    assert caught.value.hint == "it offers test"


def test_class_that_only_one_split_has_is_named(tmp_path):
    draw_folder(tmp_path / "things" / "train", classes=("star", "ring"))
    draw_folder(tmp_path / "things" / "test", classes=("star", "heart"))
    with pytest.raises(DataError, match="class 'heart' is in test and not in train"):
        task(str(tmp_path / "things"))


def test_folder_of_loose_images_says_what_is_expected(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="holds no class folders") as caught:
        task(str(tmp_path))
    assert "path,label" in caught.value.hint


def write_csv(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_csv_with_and_without_splits(shapes, tmp_path):
    labels = sorted(p.name for p in shapes.iterdir())
    rows = [f"shapes/{label}/{i}.png,{label}" for label in labels for i in range(6)]
    plain = task(write_csv(tmp_path / "plain.csv", ["path,label", *rows]))
    assert plain.name == "plain"
    assert {s: len(plain.split(s, tmp_path)) for s in plain.available_splits} == {"train": 12, "val": 3, "test": 3}
    marked = [f"{row},{'test' if '/5.' in row else 'train'}" for row in rows]
    split = task(write_csv(tmp_path / "split.csv", ["path,label,split", *marked])).split("test", tmp_path)
    assert len(split) == 3
    assert split[0][0].size == (64, 64)


def test_csv_with_numbers_keeps_their_order(shapes, tmp_path):
    files = sorted(shapes.rglob("*.png"))[:12]
    for below in ("a", "b", "c"):
        for i, path in enumerate(files):
            (tmp_path / below).mkdir(exist_ok=True)
            (tmp_path / below / f"{i}.png").write_bytes(path.read_bytes())
    rows = [
        f"{below}/{i}.png, {i}, {split}"
        for split, below in (("train", "a"), ("val", "b"), ("Test", "c"))
        for i in range(12)
    ]
    assert task(write_csv(tmp_path / "n.csv", ["Path,Label,Split", *rows])).classes == tuple(map(str, range(12)))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,label", "a.png,star"], "has no column path; its first line has: file, label"),
        (["path;label", "a.png;star"], "has no column label and no column path; its first line has: path;label"),
        (["path,label", "shapes/circle/0.png,a", "shapes/circle/0.png,b"], "names .*circle/0.png twice"),
        (["path,label", *(f"shapes/circle/{i}.png,c{i}" for i in range(6))], "too few images to hold out a test split"),
        (["path,label,split", "shapes/circle/0.png,circle,dev"], "line 2: split 'dev'"),
        (["path,label", "shapes/circle/0.png,"], "line 2: an empty path or label"),
        (["path,label", "shapes/circle/99.png,circle"], "names 1 files that do not exist, the first"),
        (["path,label", "shapes/circle/0.png,circle", "shapes/circle/1.png,circle"], "has one class, 'circle'"),
        (["path,label"], "lists no images"),
    ],
)
def test_bad_csv_names_line_and_reason(shapes, tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        task(write_csv(tmp_path / "bad.csv", lines))


def test_undecodable_image_is_named_also_from_a_worker(shapes, tmp_path):
    broken_png(shapes / "circle" / "0.png")
    samples = folder.FileSamples(((shapes / "circle" / "0.png", 0),))
    with pytest.raises(DataError, match=r"circle/0\.png cannot be read: "):
        samples[0]
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"circle/0\.png cannot be read: "):
            [checked(batch) for batch in loader(samples, 1, workers=workers)]


def test_dataset_checks_what_an_author_can_get_wrong():
    for wrong, message in (
        ({"templates": ()}, "no prompt templates"),
        ({"templates": ("a photo",)}, "has no {}"),
        ({"splits": ("dev",)}, r"names the splits \('dev',\)"),
        ({"classes": ()}, "has no classes"),
    ):
        with pytest.raises(UsageError, match=message):
            base.Dataset(**{"name": "Pets", "classes": ("cat",), "open": None} | wrong)


def test_prompts_fill_names_and_articles_and_keep_other_braces():
    assert prompts("owl", ["{article} {}", "{x} {}"]) == ["an owl", "{x} owl"]
    assert templates(["stl10", "my {}"]) == ("a photo of a {}.", "a photo of the {}.", "my {}")
    with pytest.raises(UnknownNameError, match="unknown prompt template 'STL'; did you mean STL10"):
        templates(["STL"])


HALVES = {"name": "Halves", "classes": ("a", "b"), "open": None, "head_classes": ("x", "y", "z")}


@pytest.mark.parametrize(
    "wrong",
    [
        {"label_map": ()},
        {"label_map": ((0,),)},
        {"label_map": ((0,), (3,))},
        {"label_map": ((0,), (-1,))},
        {"label_map": ((0,), (1,)), "head_classes": ()},
    ],
)
def test_merges_have_to_fit_classes_and_head(wrong):
    with pytest.raises(UsageError, match="the label_map of dataset 'Halves' do not fit"):
        base.Dataset(**HALVES | wrong)


def test_class_names_given_to_a_task_with_another_tasks_head_are_the_heads():
    dataset = base.Dataset(**HALVES, label_map=((0, 2), (1,)))
    assert dataset.head_names == ("x", "y", "z")
    given = folder.renamed(dataset, ["p", "q", "r"], None)
    assert (given.classes, given.head_names) == (("a", "b"), ("p", "q", "r"))
    with pytest.raises(UsageError, match="2 class names for 3 classes of 'Halves'"):
        folder.renamed(dataset, ["p", "q"], None)


def test_layouts_are_found_by_name_alone(tmp_path):
    layouts = ("a/{train,test}/*/*.jpg", "b/{x/{one,two},y}.txt")
    assert base.parts(layouts[0]) == ["a/train", "a/test"]
    assert sorted(base.parts(layouts[1])) == ["b/x/one.txt", "b/x/two.txt", "b/y.txt"]
    dataset = base.Dataset("Things", ("a", "b"), None, layouts=layouts)
    assert dataset.find(tmp_path) is None
    (tmp_path / "a" / "train").mkdir(parents=True)
    assert dataset.find(tmp_path) is None
    (tmp_path / "a" / "test").mkdir()
    assert dataset.find(tmp_path) is None  # empty folders hold no data
    for split in ("train", "test"):
        (tmp_path / "a" / split / "cat").mkdir()
    assert dataset.find(tmp_path) == layouts[0]


def test_expected_sizes_know_of_the_cut():
    dataset = base.Dataset("Things", ("a",), None, counts={"train": 60_000, "test": 10_000})
    assert [dataset.expected(split) for split in base.SPLITS] == [55_000, 5_000, 10_000]
    native = base.Dataset("Things", ("a",), None, splits=base.SPLITS, counts={"train": 50, "val": 7})
    assert [native.expected(split) for split in base.SPLITS] == [50, 7, None]


def test_context_of_some_images_keeps_what_is_whole():
    annotations = base.Annotations([0, 1, 0, 1], ("even", "odd"), [{0}, {1}, {2}, {3}], [[0, 1], [2, 3, 1]])
    assert annotations.of([3, 2, 1]) == base.Annotations([1, 0, 1], ("even", "odd"), [{3}, {2}, {1}], [[1, 0, 2]])
    assert base.annotations_of(base.Subset(folder.FileSamples([("x", 4), ("y", 5)], None, annotations), [1])).groups == [1]
    assert base.annotations_of(range(3)) == base.Annotations()


def test_labels_are_known_without_decoding():
    samples = folder.FileSamples([("missing.png", 4), ("missing.jpg", 5), ("none", 6)])
    assert base.labels_of(base.Subset(base.Subset(samples, [2, 0]), [1])) == [4]
    assert base.labels_of(range(3)) is None


@pytest.mark.parametrize(
    ("size", "images", "expected"),
    [(64, 150, [64, 64, 22]), (5, 11, [5, 5, 1]), (128, 300, [128, 128, 44]), (97, 200, [96, 96, 8]), (512, 70, [70])],
)
def test_batches_are_joined_from_pieces_in_order(size, images, expected, monkeypatch):
    class Numbers:
        def __len__(self):
            return images

        def __getitem__(self, index):
            return torch.full((3,), index), -index

    asked = []
    original = loading.loader
    monkeypatch.setattr(loading, "loader", lambda *args, **more: asked.append(args[1]) or original(*args, **more))
    found = list(loading.batches_on(Numbers(), size, torch.device("cpu"), workers=2))
    assert asked == [min(size, 64) if size != 97 else 48]
    assert [len(labels) for _, labels in found] == expected
    assert torch.cat([pixels[:, 0] for pixels, _ in found]).tolist() == list(range(images))
    assert torch.cat([labels for _, labels in found]).tolist() == [-index for index in range(images)]
    assert len(next(loading.batches_on(Numbers(), size, torch.device("cpu")))[1]) == min(size, images)
    assert asked[1] == size  # nobody hands anything over

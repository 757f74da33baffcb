"""Broken datasets, as a plugin may bring them: each is one error that names the dataset and the image, wherever it is used."""

import errno
import io
import pickle
import sys
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from wisepatch import Dataset, EvalConfig, ModelConfig, Task, TrainConfig, finetune
from wisepatch.datasets import loading
from wisepatch.datasets.inspection import inspect
from wisepatch.datasets.samples import Annotations, labels_of
from wisepatch.errors import DataError, WisepatchError
from wisepatch.evaluation.prediction import predict_many
from wisepatch.models.clip import load_clip
from wisepatch.workflows.preflight import preflight

DEMO = ModelConfig("demo", "")
SIZE = 12


class Good:
    """Grey squares of two classes."""

    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return SIZE

    def image(self, index):
        return Image.new("RGB", (70, 70), (20 * index,) * 3)

    def __getitem__(self, index):
        image = self.image(index)
        return (self.transform(image) if self.transform else image), index % 2


def raising(error, at=5):
    """Samples that raise at one of the images."""

    class Raising(Good):
        def __getitem__(self, index):
            if index == at:
                raise error
            return super().__getitem__(index)

    return lambda split, root, transform=None: Raising(transform)


def giving(item=None, **attributes):
    """Samples that give something else for image 5: of ``item(image, label)``; with these attributes."""

    class Giving(Good):
        def __getitem__(self, index):
            given = super().__getitem__(index)
            return item(*given) if item and index == 5 else given

    def open_split(split, root, transform=None):
        samples = Giving(transform)
        for name, value in attributes.items():
            setattr(samples, name, value)
        return samples

    return open_split


def with_length(length):
    class Lying(Good):
        def __len__(self):
            return length() if callable(length) else length

        def __getitem__(self, index):
            if index >= SIZE:
                raise IndexError(index)
            return super().__getitem__(index)

    return lambda split, root, transform=None: Lying(transform)


def opened_as(value):
    def open_split(split, root, transform=None):
        if isinstance(value, BaseException):
            raise value
        return value

    return open_split


class Methods(Good):
    def fingerprint(self):
        raise KeyError("fingerprint")

    def image_ids(self):
        raise AttributeError("image_ids")

    def images(self, needed):
        return ()


class UnreadableLabels(Good):
    @property
    def labels(self):
        raise RuntimeError("labels")


def generator(split, root, transform=None):
    yield from Good(transform)


labels, lengths = list(np.arange(SIZE) % 2), count(SIZE, -1)
BROKEN = {  # the function that opens it, and what is said when all of it is read
    "raises KeyError": (raising(KeyError("x")), r"image 5 cannot be read: KeyError: 'x'"),
    "raises StopIteration": (raising(StopIteration()), "image 5 cannot be read: StopIteration"),
    "raises StopIteration at once": (raising(StopIteration(), at=0), "image 0 cannot be read: StopIteration"),
    "raises GeneratorExit": (raising(GeneratorExit()), "image 5 cannot be read: GeneratorExit"),
    "ends the program": (raising(SystemExit(7)), "image 5 cannot be read: SystemExit: 7"),
    "raises OSError": (raising(OSError(errno.EIO, "bad disk")), r"image 5 cannot be read: \[Errno 5\] bad disk"),
    "raises EOFError": (raising(EOFError()), "image 5 cannot be read: EOFError"),
    "raises AssertionError": (raising(AssertionError()), "image 5 cannot be read: AssertionError"),
    "recurs for ever": (raising(RecursionError("deep")), "image 5 cannot be read: RecursionError: deep"),
    "raises a bomb": (raising(Image.DecompressionBombError("big")), "image 5 cannot be read: DecompressionBombError: big"),
    "gives nothing": (giving(lambda image, label: None), "image 5 is given as None, not as a pair"),
    "gives the image alone": (giving(lambda image, label: image), "image 5 is given as a Tensor, not as a pair"),
    "gives three": (giving(lambda image, label: (image, label, 1)), "image 5 is given as a tuple, not as a pair"),
    "gives a dict": (giving(lambda image, label: {"image": image, "label": label}), "image 5 is given as a dict"),
    "gives a text": (giving(lambda image, label: "ab"), "image 5 is given as a str"),
    "turns the pair": (giving(lambda image, label: (label, image)), "image 5 is 1, not a Tensor"),
    "gives no image": (giving(lambda image, label: (None, label)), "image 5 is None, not a Tensor"),
    "gives a path": (giving(lambda image, label: ("5.png", label)), "image 5 is a str, not a Tensor"),
    "does not transform": (giving(lambda _, label: (Image.new("RGB", (4, 4)), label)), "image 5 is a Image, not a Tensor"),
    "gives an array": (giving(lambda image, label: (np.zeros((3, 64, 64)), label)), "image 5 is a ndarray, not a Tensor"),
    "gives another size": (giving(lambda i, label: (torch.zeros(3, 8, 8), label)), r"image 5 is torch.float32 \(3, 8, 8\)"),
    "gives one channel": (giving(lambda image, label: (image[:1], label)), r"image 5 is torch.uint8 \(1, 64, 64\), and the"),
    "label is a text": (giving(lambda image, label: (image, "cat")), "the label of image 5 is a str, not an integer"),
    "label is real": (giving(lambda image, label: (image, 1.0)), "the label of image 5 is 1.0, not an integer"),
    "label is nothing": (giving(lambda image, label: (image, None)), "the label of image 5 is None, not an integer"),
    "label is a list": (giving(lambda image, label: (image, [1])), "the label of image 5 is a list, not an integer"),
    "label is hot": (giving(lambda image, label: (image, torch.tensor([0, 1]))), "the label of image 5 is a Tensor, not"),
    "label is one too many": (giving(lambda image, label: (image, 2)), "the label of image 5 is 2, which"),
    "label is negative": (giving(lambda image, label: (image, -1)), "the label of image 5 is -1, which is outside"),
    "label is huge": (giving(lambda image, label: (image, 10**5000)), "the label of image 5 is a huge integer, which is outside"),
    "raises many lines": (raising(RuntimeError("a\nb" + "c" * 9000)), r"image 5 cannot be read: RuntimeError: a bccc"),
    "is longer than it is": (with_length(SIZE + 3), "image 12 cannot be read: IndexError: 12"),
    "has a negative length": (with_length(-1), r"its length cannot be read: __len__\(\) should return >= 0"),
    "has a length of text": (with_length("12"), "its length cannot be read: TypeError"),
    "has no end": (with_length(2**70), "its length cannot be read: OverflowError"),
    "raises where its length is asked": (with_length(lambda: 1 / 0), "its length cannot be read: ZeroDivisionError"),
    "is empty": (with_length(0), "holds no images"),
    "is a generator": (generator, "is opened as a generator, which has no length"),
    "is an iterator": (opened_as(iter([1])), "is opened as a list_iterator, which has no length"),
    "is nothing": (opened_as(None), "is opened as None, which has no length"),
    "is a set": (opened_as({1, 2}), "is opened as a set, which has no length or no images by index"),
    "is a text": (opened_as("abcdefghijkl"), "is given as a str"),
    "is a dict": (opened_as({"a": 1, "b": 2}), "cannot be read: KeyError: 0"),
    "is a number": (opened_as(5), "is opened as 5, which"),
    "does not open": (opened_as(KeyError("train")), "cannot be opened: KeyError: 'train'"),
    "stops when it is opened": (opened_as(StopIteration()), "cannot be opened: StopIteration"),
    "ends the program when it is opened": (opened_as(SystemExit(0)), "cannot be opened: SystemExit: 0"),
    "cannot be called": ("open_split", "cannot be opened: TypeError: 'str' object is not callable"),
    "takes no transform": (lambda split, root: Good(None), "cannot be opened: TypeError"),
    "takes no split": (lambda: Good(None), "cannot be opened: TypeError"),
    "lists labels of text": (giving(labels=["cat"] * SIZE), None),
    "lists labels outside": (giving(labels=[7] * SIZE), None),
    "lists too few labels": (giving(labels=[0]), None),
    "lists a number of labels": (giving(labels=5), None),
    "has labels that raise": (lambda split, root, transform=None: UnreadableLabels(transform), None),
    "has methods that raise": (lambda split, root, transform=None: Methods(transform), None),
    "has annotations of text": (giving(annotations="none"), None),
    "has too few groups": (giving(annotations=Annotations(groups=[0], group_names=("a",))), None),
    "has groups without a name": (giving(annotations=Annotations(groups=[3] * SIZE, group_names=("a",))), None),
    "has groups of text": (giving(annotations=Annotations(groups=["a"] * SIZE, group_names=("a",))), None),
    "has sequences outside": (giving(annotations=Annotations(sequences=[[0, 99]])), None),
    "has sequences of numbers": (giving(annotations=Annotations(sequences=[1, 2])), None),
    "sets no epoch": (giving(set_epoch=5), None),
    "has a list of images": (giving(images=[1, 2]), None),
    "has data that are no array": (giving(data=SimpleNamespace(numpy=3)), None),
}  # fmt: skip


@pytest.fixture(scope="module")
def clip():
    return load_clip(DEMO)


def task(open_split):
    return Task("Pets", Dataset("Pets", ("cat", "dog"), open_split, splits=("train", "test")))


IN_A_WORKER = [pytest.param(case, 1, marks=pytest.mark.slow) for case in list(BROKEN)[::8]]  # each starts a process


@pytest.mark.parametrize(("case", "workers"), [*((case, 0) for case in BROKEN), *IN_A_WORKER])
def test_reading_all_of_a_broken_dataset_names_it_and_the_image(case, tmp_path, clip, workers):
    open_split, message = BROKEN[case]

    def read_all():
        split = task(open_split).dataset.split("test", tmp_path, clip.pixels)
        return list(loading.batches_on(split, 4, torch.device("cpu"), workers=workers))

    if message:
        with pytest.raises(DataError, match=rf"Pets'? ?\(?.*{message}") as caught:
            read_all()
        assert "Pets" in caught.value.message
        assert caught.value.hint
    else:
        assert sum(len(batch.labels) for batch in read_all()) == SIZE


@pytest.mark.parametrize("case", BROKEN)
def test_whatever_is_done_with_a_broken_dataset_gives_no_other_error(case, tmp_path, clip, finished):
    """Checked, looked at image by image, opened before the work, fingerprinted, measured."""
    from wisepatch import Store

    broken = task(BROKEN[case][0])
    store = Store(finished[0] / "store")
    (parent,) = [each for each in store.everything() if each.kind == "zeroshot"][:1]

    def look(split="test"):
        opened = broken.dataset.split(split, tmp_path)
        return (
            opened.fingerprint(),
            opened.image_ids(),
            opened.annotations,
            labels_of(opened.samples),
            pickle.dumps(len(opened)),
        )

    errors = []
    for use in (
        look, lambda: look("val"), lambda: inspect(broken.dataset, "test", tmp_path),
        lambda: inspect(broken.dataset, "train", tmp_path, deep=True), lambda: preflight([(broken, ["train", "val",
        "test"])], tmp_path),
        lambda: BROKEN[case][1] or list(predict_many([parent], [broken], store, tmp_path, settings=EvalConfig(workers=0))),
    ):  # fmt: skip
        try:
            use()
        except WisepatchError as error:
            errors.append(error)
    for error in errors:
        assert "Pets" in error.message
        assert "\n" not in error.message or error.message.startswith("2 things") or error.message.startswith("3 things")
    harmless = ("lists too few labels", "sets no epoch", "has a list of images")
    assert errors or BROKEN[case][1] or case in harmless


@pytest.mark.parametrize(
    "case", ["raises StopIteration", "ends the program", "does not transform", "label is one too many",
    "is longer than it is", "is a generator"]
)  # fmt: skip
def test_nothing_is_trained_on_a_part_of_a_broken_dataset(case, tmp_path, run_store):
    config = TrainConfig.with_defaults("Pets", steps=3, batch_size=8, workers=0)
    with pytest.raises(DataError, match="Pets"):
        finetune(config, DEMO, run_store, tmp_path, task=task(BROKEN[case][0]))


def test_memory_that_runs_out_in_a_dataset_stays_that(tmp_path):
    split = task(raising(MemoryError(), at=0)).dataset.split("test", tmp_path)
    with pytest.raises(MemoryError):
        split[0]


def test_an_interrupt_in_a_dataset_stays_one(tmp_path):
    split = task(raising(KeyboardInterrupt(), at=0)).dataset.split("test", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        split[0]


def test_looking_at_a_transform_draws_no_random_numbers(tmp_path, clip):
    split = task(giving()).dataset.split("test", tmp_path, clip.train_transform)
    torch.manual_seed(3)
    expected = clip.train_transform(Good(None)[0][0])
    torch.manual_seed(3)
    assert torch.equal(split[0][0], expected)


def test_numbers_of_numpy_and_torch_are_labels(tmp_path):
    for kind in (np.int64, np.uint8, torch.tensor):
        split = task(giving(lambda image, label, kind=kind: (image, kind(label)))).dataset.split("test", tmp_path)
        assert split[5][1] == 1
        assert type(split[5][1]) is int


def test_other_attributes_are_those_of_the_samples(tmp_path):
    samples = task(giving(root="here")).dataset.split("test", tmp_path).samples
    assert samples.root == "here"
    assert not hasattr(samples, "nothing")
    assert not hasattr(object.__new__(type(samples)), "samples")


def test_ghostscript_is_not_started_by_any_library_that_opens_images(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    from wisepatch.datasets.decoding import forbid_other_programs

    forbid_other_programs.cache_clear()

    class Opening(Good):
        def image(self, index):
            return Image.open(io.BytesIO(eps)).convert("RGB")

    split = task(lambda split, root, transform=None: Opening(transform)).dataset.split("test", tmp_path)
    with pytest.raises(DataError, match=r"Pets \(test\): image 0 cannot be read: Unable to locate Ghostscript"):
        split[0]


@pytest.mark.parametrize("case", ["raises StopIteration", "ends the program", "label is one too many", "is nothing"])
@pytest.mark.parametrize("words", [("datasets", "check", "Pets", "--deep"), ("eval", "zeroshot", "--task", "Pets")])
def test_the_command_line_says_it_in_one_line(cli, run_store, monkeypatch, case, words):
    from wisepatch import plugins

    known = plugins.registry()
    owner = plugins.Plugin("pets", "pets 1.0", {"register_datasets": (task(BROKEN[case][0]).dataset,)})
    monkeypatch.setattr(plugins, "registry", lambda: plugins.Registry((owner,), known.builtins))
    monkeypatch.setattr(sys.modules["wisepatch.task_specs"], "registry", plugins.registry)
    result = cli(*words)
    assert result.exit_code == 1
    assert "error: " in result.stderr
    assert "Pets" in result.stderr
    assert "Traceback" not in result.output

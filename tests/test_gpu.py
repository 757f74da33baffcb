"""What is computed on a GPU is what is computed on the CPU.

Without a GPU a simulated one checks that devices are not mixed; where there is a real one, ``pytest -m gpu`` runs these on it.
"""

import shutil
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from tests.samples import draw_folder, random_fishers, recipes, save_small_vit, with_head_of
from tests.simulated import OnGpu, simulated_gpu
from wisepatch import ModelConfig, Store, TrainConfig, find_task, finetune, load_weights
from wisepatch.config import EvalConfig
from wisepatch.datasets import demo
from wisepatch.datasets.drawn_shapes import SHAPES
from wisepatch.evaluation.endpoints import Mix
from wisepatch.evaluation.prediction import predict_many
from wisepatch.evaluation.validation import watcher
from wisepatch.models.clip import load_clip
from wisepatch.models.tower import Tower
from wisepatch.training.fisher_information import line_fishers
from wisepatch.workflows.sweep import sweep

REAL = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu] if REAL else []
ALPHAS = (0.0, 0.25, 0.5, 1.0)
KINDS = {"paint": {}, "wise-ft": {"head": "trained"}, "linear-probe": {"freeze_encoder": True}}


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 100, "val": 60, "test": 60})


@contextmanager
def here(where):
    """On the GPU or on the CPU; Accelerate looks anew which of them there is."""
    with pytest.MonkeyPatch.context() as patches:
        if where == "cpu" and REAL:
            patches.setattr(torch.cuda, "is_available", lambda: False)
        patches.setattr(torch.backends.cudnn, "allow_tf32", False)  # fp32 is fp32
        AcceleratorState._reset_state(reset_partial_state=True)
        try:
            with simulated_gpu() if where == "gpu" and not REAL else nullcontext():
                yield torch.device("cuda" if where == "gpu" else "cpu")
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)


def train(root, store, watched=False, **settings):
    config = TrainConfig.with_defaults(
        str(root / "shapes"), supported=("Colors",), steps=4, batch_size=8, lr=1e-2, warmup=0, workers=0, **settings
    )
    other_prompts = find_task(str(root / "shapes"), None, ("a drawing of a {}.",))
    watch = watcher([find_task(str(root / "shapes")), other_prompts], store, root, EvalConfig(workers=0))
    return finetune(config, ModelConfig("demo", ""), store, root, watch=watch if watched else None)


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """A store for each kind of training."""
    stores = {"paint": finished[0] / "store"}
    with here("cpu"):
        for kind, settings in KINDS.items():
            if kind not in stores:
                stores[kind] = tmp_path_factory.mktemp("trained") / kind
                train(finished[0], Store(stores[kind]), **settings)
    return stores


@pytest.fixture
def alone(trained, tmp_path):
    """A function that copies the store of a kind of training, as often as is wanted."""
    copies = []

    def copy(kind):
        copies.append(tmp_path / f"store {len(copies)}")
        shutil.copytree(trained[kind], copies[-1])
        return Store(copies[-1])

    return copy


@pytest.mark.skipif(REAL, reason="a real GPU is no simulation")
def test_simulated_gpu_refuses_what_a_real_one_refuses():
    with simulated_gpu():
        numbers, there = torch.arange(6.0).view(2, 3), torch.arange(6.0).view(2, 3).to("cuda")
        assert (numbers.device.type, there.device.type, (there * 2).device.type) == ("cpu", "cuda", "cuda")
        assert (there.is_cuda, there.is_cpu, numbers.is_cuda) == (True, False, False)
        for mixed in (
            lambda: there + numbers,
            lambda: there.add_(numbers),
            lambda: torch.zeros(()).add_(there.sum()),
            lambda: torch.equal(there, numbers),
            lambda: torch.cat([there, numbers]),
            lambda: torch.nn.Linear(3, 2)(there),
            lambda: torch.nn.Linear(3, 2).to("cuda")(numbers),
            lambda: numbers[there.view(-1)[:2].long()],
            lambda: torch.lerp(there, numbers, 0.5),
            lambda: torch.where(numbers > 1, there, 0),
            lambda: torch.stack([there.sum(), numbers.sum()]),
            lambda: there.gather(0, numbers.sum().long()),
            lambda: torch.nn.functional.cross_entropy(there[0], numbers[0, 0].long()),
            lambda: there.__setitem__(there[:, 0] > 0, numbers[0]),
            lambda: numbers.__setitem__(0, there[0]) or numbers + there,
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        for asked in (there.numpy, lambda: np.asarray(there), lambda: np.zeros((2, 3)).__setitem__(0, there[0])):
            with pytest.raises(TypeError, match="cuda:0"):
                asked()
        with pytest.raises(RuntimeError, match="pin"):
            there.pin_memory()
        there[0], numbers[1] = numbers[0], there[1]  # copies, from one to the other
        assert there.cpu().numpy().tolist() == numbers.tolist()
        assert there[numbers.argmax(0)].device == (there + torch.tensor(1.0)).device == there.device
        assert type(torch.zeros(2, device=there.device)) is type(torch.zeros_like(there)) is OnGpu
        assert type(numbers.to(there)) is OnGpu
        assert type(there.to("cpu")) is type(torch.zeros(2)) is torch.Tensor
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(2, device="cuda")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("paint", {}),
        ("paint", {"mixed_precision": "bf16"}),
        ("paint", {"mixed_precision": "fp16"}),
        ("paint", {"cache_images": True}),
        ("paint", {"batch_size": 5}),
        ("wise-ft", {}),
        ("linear-probe", {}),
        ("linear-probe", {"mixed_precision": "bf16"}),
    ],
)
def test_sweep_on_a_gpu_gives_the_rows_of_the_cpu(kind, settings, finished, alone, tmp_path):
    # With tasks of other classes beside it, a linear probe needs the text tower, and not only what is cached.
    others = [str(draw_folder(tmp_path / "others", classes=SHAPES[3:6]))] if kind != "linear-probe" or settings else []
    values, stores = [], [alone(kind), alone(kind)]
    for where, store in (
        ("cpu", stores[0]),
        ("gpu", stores[1]),
        ("gpu", stores[1]),
    ):  # lastly with what is cached by then
        with here(where):
            swept = sweep(
                store,
                finished[0],
                alphas=ALPHAS,
                tasks=others,
                settings=EvalConfig(**{"workers": 0, "batch_size": 7} | settings),
            )
        values.append({(row["alpha"], row["task"]): row["value"] for row in swept.rows})
    assert len(values[0]) == (1 + len(others)) * len(ALPHAS)
    assert values[0].keys() == values[1].keys()
    for key, value in values[0].items():
        assert values[1][key] == pytest.approx(value, abs=0.02 if REAL else 1e-9), key
        assert values[2][key] == values[1][key]


@pytest.mark.parametrize("kind", ["paint", "wise-ft"])
def test_on_a_gpu_without_room_for_the_ends_the_rows_are_those_of_the_cpu(kind, finished, alone, monkeypatch):
    values = []
    for where, store in (("cpu", alone(kind)), ("gpu", alone(kind))):
        with here(where):
            monkeypatch.setattr("wisepatch.evaluation.endpoints.has_room", lambda device, size: device.type != "cuda")
            swept = sweep(store, finished[0], alphas=ALPHAS, tasks=[], settings=EvalConfig(workers=0))
        values.append([row["value"] for row in swept.rows])
    assert values[1] == pytest.approx(values[0], abs=0.02 if REAL else 1e-9)


def test_predictions_on_a_gpu_are_those_of_the_cpu_also_with_a_label_map(finished, alone):
    predictions = {}
    for where in ("cpu", "gpu"):
        store = alone("paint")
        with here(where) as device:
            mixes = recipes(store, ALPHAS)
            task = find_task(str(finished[0] / "shapes"))
            tasks = [task, with_head_of(task), find_task(f"typo:{task.spec}")]
            settings = EvalConfig(workers=0, batch_size=4)
            predictions[where] = list(predict_many(mixes, tasks, store, finished[0], settings=settings))
        assert device.type == ("cuda" if where == "gpu" else "cpu")
    for one, other in zip(predictions["cpu"], predictions["gpu"], strict=True):
        assert (one.predicted == other.predicted).mean() > (0.98 if REAL else 1 - 1e-9)
        assert np.allclose(one.confidence, other.confidence, atol=0.02 if REAL else 1e-6)
        assert one.labels.tolist() == other.labels.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_training_on_a_gpu_is_training_on_the_cpu(kind, precision, finished, tmp_path):
    results = {}
    for where in ("cpu", "gpu"):
        store = Store(tmp_path / where)
        with here(where):
            if where == "gpu":  # the same head to the bit
                shutil.copytree(tmp_path / "cpu" / "cache" / "heads", store.cache.root / "heads")
            done = train(finished[0], store, True, mixed_precision=precision, eval_every=0.5, **KINDS[kind])
        results[where] = done.losses, load_weights(store, done.finetuned)
    (losses, weights), (others, moved) = results["cpu"], results["gpu"]
    assert weights.keys() == moved.keys()
    if REAL:  # other kernels round otherwise, and AdamW's first steps are as long where a gradient is all but nothing
        assert others[0] == pytest.approx(losses[0], rel=0.05, abs=0.005)  # in bf16 logits are off by some hundredths
        return
    assert others == pytest.approx(losses, rel=1e-4)
    assert all(torch.allclose(weights[name], moved[name], atol=1e-5) for name in weights)


def test_fp16_trains_on_a_gpu(finished, tmp_path):
    with here("gpu"):
        done = train(finished[0], Store(tmp_path / "store"), mixed_precision="fp16")
    assert all(np.isfinite(done.losses))


def test_fisher_information_on_a_gpu_is_that_of_the_cpu(finished, alone):
    measured, notes, task = {}, {}, find_task(str(finished[0] / "shapes"))
    for where in ("cpu", "gpu"):
        store, notes[where] = alone("paint"), []
        start, end = (store.find(kind) for kind in ("zeroshot", "finetuned"))
        with here(where), pytest.MonkeyPatch.context() as patches:
            patches.setattr("wisepatch.progress.Silent.note", lambda _, text, heard=notes[where]: heard.append(text))
            about = line_fishers(start, end, task, store, finished[0], examples=6, workers=0)
            mixes = sweep(
                store,
                finished[0],
                alphas=[0.5],
                tasks=[],
                method="fisher",
                fisher_examples=6,
                settings=EvalConfig(workers=0, batch_size=7),
            ).checkpoints
        assert notes[where]
        if REAL or where == "cpu":  # the simulation knows nothing of torch.func
            assert not [note for note in notes[where] if "one at a time" in note], where
        measured[where] = about, store.read_fishers(mixes[0.5])
    for one, other in zip(measured["cpu"][1], measured["gpu"][1], strict=True):
        assert one.keys() == other.keys()
        for name, values in one.items():
            assert (values - other[name]).abs().max() <= (0.2 if REAL else 1e-4) * values.max(), name


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["linear", "fisher"])
def test_transformer_on_a_gpu_has_the_features_of_the_cpu(finished, tmp_path, precision, method):
    """Blocks of open_clip's own, the class token alone at the last, mixed by both methods."""
    confidences, task = {}, find_task(str(finished[0] / "shapes"))
    for where in ("cpu", "gpu"):
        store = Store(tmp_path / where)
        save_small_vit(store, tmp_path / f"{where} model", 32)
        mixes = recipes(store, (0.25, 0.75), method=method, **random_fishers(store) if method == "fisher" else {})
        with here(where):
            settings = EvalConfig(workers=0, batch_size=4, mixed_precision=precision)
            (predictions,) = predict_many(mixes, [task], store, finished[0], split="train", settings=settings)
        confidences[where] = predictions.confidence
    assert np.allclose(confidences["cpu"], confidences["gpu"], atol=1e-3 if precision == "no" else 0.05)


@pytest.mark.skipif(REAL, reason="a real GPU has room")
@pytest.mark.slow
def test_batches_on_a_gpu_are_as_large_as_its_memory_allows(monkeypatch):
    tried = []

    def features(self, images):
        tried.append((len(images), images.device.type))
        if len(images) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return images

    with here("gpu") as device:
        tower = Tower(load_clip(ModelConfig("demo", "")).model.visual, device)
        monkeypatch.setattr(Tower, "features", features)
        size = tower.largest_batch(64, 64)
    assert tried[0] == (512, "cuda")
    assert tried[-1][0] <= 100
    assert size == tried[-1][0] * 3 // 4


def test_weights_are_mixed_once_for_several_batches_on_a_gpu(finished, alone, monkeypatch):
    mixed, original = [], Mix.set_weights
    monkeypatch.setattr(Mix, "set_weights", lambda self, visual: mixed.append(self) or original(self, visual))
    monkeypatch.setattr("wisepatch.evaluation.passes.IMAGES_PER_MIX", 1)
    counts = {}
    for where in ("cpu", "gpu"):
        store = alone("paint")
        mixed.clear()
        with here(where):
            swept = sweep(store, finished[0], alphas=ALPHAS, tasks=[], settings=EvalConfig(workers=0, batch_size=1))
        assert {row["n"] for row in swept.rows} == {3}
        counts[where] = len(mixed)
    assert counts["cpu"] == 3 * counts["gpu"] == 3 * len(ALPHAS)

"""Features of a split in the cache: those of the tower, by a key of all that they depend on, made again where damaged."""

from functools import partial
from importlib.metadata import version

import pytest
import torch
from PIL import Image

from tests.samples import Notes
from wisepatch import ModelConfig, Store, load_clip
from wisepatch.config import EvalConfig
from wisepatch.evaluation import features as module
from wisepatch.evaluation.features import features_key, split_features
from wisepatch.files import hash_tensors
from wisepatch.models.tower import Tower

DEMO, CPU = ModelConfig("demo", ""), torch.device("cpu")


@pytest.fixture
def clip():
    return load_clip(DEMO)


@pytest.fixture
def compute(clip, tasks, tmp_path):
    """A function that gives the features of the 12 training images of shapes, and a store."""
    store, visual = Store(tmp_path / "store"), hash_tensors(clip.model.visual.state_dict())
    open_split = partial(tasks[0].dataset.split, "train", tmp_path)

    def compute(load=lambda: clip, progress=None, **settings):
        return split_features(
            open_split, store, visual, DEMO, load, CPU, EvalConfig(**{"workers": 0} | settings), progress
        )

    compute.store, compute.open_split = store, open_split
    return compute


@pytest.mark.parametrize("precision", ["no", "bf16"])
@torch.inference_mode()
def test_features_are_those_of_the_tower_and_of_unit_length(compute, clip, precision):
    features = compute(batch_size=5, mixed_precision=precision)
    split = compute.open_split(clip.transform)
    tower = Tower(load_clip(DEMO).model.visual, CPU, {"no": None, "bf16": torch.bfloat16}[precision])
    images = torch.stack([split[index][0] for index in range(12)])
    expected = torch.cat([tower.features(tower.take(batch)) for batch in images.split(5)])
    assert torch.equal(features.features, expected)
    assert features.features.dtype == torch.float32
    assert torch.allclose(features.features.norm(dim=1), torch.ones(12))
    assert features.labels.tolist() == [split[index][1] for index in range(12)]
    assert len(features) == 12
    assert torch.equal(features[3][0], expected[3])
    assert features[3][1] == split[3][1]


def test_features_are_computed_once_and_the_clip_is_left_as_it_was(compute, clip, decoded):
    notes, before = Notes(), hash_tensors(clip.model.visual.state_dict())
    first = compute(progress=notes, mixed_precision="bf16")
    assert hash_tensors(clip.model.visual.state_dict()) == before
    assert notes.stages == ["features of shapes (train)"]
    assert notes.total == sum(notes.steps) == len(decoded) == 12
    again = compute(load=lambda: pytest.fail("the model is not needed"), progress=notes, mixed_precision="bf16")
    assert torch.equal(first.features, again.features)
    assert len(decoded) == 12
    assert notes.notes == []


@pytest.mark.parametrize("name", ["tensors.safetensors", "entry.json"])
def test_features_with_a_flipped_bit_are_noticed_and_made_again(compute, decoded, name):
    first, notes = compute().features.clone(), Notes()  # what is read is mapped from the file
    (path,) = compute.store.root.glob(f"cache/features/*/{name}")
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)
    assert torch.equal(first, compute(progress=notes).features)
    assert len(decoded) == 24
    (note,) = notes.notes
    assert note.startswith("the cache entry ")
    assert note.endswith("it is made again")
    assert compute.store.cache.problems() == []


def test_what_features_depend_on_has_a_key_of_its_own(compute, monkeypatch):
    split = compute.open_split(None)
    keys = {features_key("aa", DEMO, None, split), features_key("aa", DEMO, None, compute.open_split(None))}
    assert len(keys) == 1
    keys |= {
        features_key("bb", DEMO, None, split),
        features_key("aa", ModelConfig("ViT-B-32", "openai"), None, split),
        features_key("aa", DEMO, torch.bfloat16, split),
    }
    path, _ = split.samples.files[0]
    Image.new("RGB", (64, 64)).save(path)
    keys.add(features_key("aa", DEMO, None, compute.open_split(None)))
    monkeypatch.setattr(module, "describe", lambda model: {"preprocess_cfg": {"mean": [0, 0, 0]}})
    keys.add(features_key("aa", DEMO, None, split))
    assert len(keys) == 6


@pytest.mark.parametrize("package", ["wisepatch", "torch", "open_clip_torch", "torchvision", "pillow"])
def test_another_version_of_what_makes_features_is_another_key(compute, monkeypatch, package):
    split = compute.open_split(None)
    before = features_key("aa", DEMO, None, split)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0" if name == package else version(name))
    assert features_key("aa", DEMO, None, split) != before

"""Weights as people have them: wrapped, prefixed, half a training, archived; their names come out plain."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.tiny_clips import tiny_clip, tiny_weights
from tests.weights.test_torch_files import zip_of
from wisepatch.errors import ModelError
from wisepatch.weights.state_dicts import read_state_dict

SMALL = {"visual.proj": torch.ones(2, 2), "ln_final.weight": torch.zeros(3), "logit_scale": torch.tensor(1.0)}


def saved(tmp_path, content, name="w.pt"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def prefixed(*prefixes):
    return {"".join(prefixes) + name: tensor for name, tensor in SMALL.items()}


@pytest.mark.parametrize(
    "prefixes",
    [
        ("module.",),
        ("_orig_mod.",),
        ("model.",),
        ("image_encoder.model.",),
        ("_orig_mod.module.",),
        ("module._orig_mod.",),
        ("model.module._orig_mod.",),
        ("module.image_encoder.model.",),
        ("_orig_mod.image_encoder.module.model.",),
        ("module.module.",),
        (),
    ],
)
@pytest.mark.parametrize("key", ["", "state_dict", "model", "model_state_dict", "state_dict/model"])
def test_prefixes_and_wrappings_are_taken_off_in_any_nesting(tmp_path, prefixes, key):
    content = prefixed(*prefixes)
    for each in reversed(key.split("/") if key else []):
        content = {each: content, "epoch": 3}
    assert list(read_state_dict(saved(tmp_path, content)).tensors) == list(SMALL)


def test_compiled_towers_within_a_model_are_plain_too(tmp_path):
    content = {
        "visual._orig_mod.transformer.resblocks.0._orig_mod.ln_1.weight": torch.ones(1),
        "visual.module.proj": torch.ones(1),
    }
    assert list(read_state_dict(saved(tmp_path, content)).tensors) == [
        "visual.transformer.resblocks.0.ln_1.weight",
        "visual.proj",
    ]


def test_checkpoint_of_a_training_with_its_optimizer_and_a_numpy_number_is_read(tmp_path):
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    from argparse import Namespace
    from pathlib import Path

    content = {
        "epoch": 3,
        "name": "run",
        "state_dict": prefixed("module."),
        "optimizer": optimizer.state_dict(),
        "best": np.float64(0.5),
        "scaler": {"scale": 65536.0},
        "args": Namespace(lr=1e-3, logs=Path("/logs")),
        "rng": torch.get_rng_state(),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "losses": np.arange(3.0),
        "seen": {1, 2},
    }
    for protocol in (2, 4):
        torch.save(content, tmp_path / "epoch_3.pt", pickle_protocol=protocol)
        read = read_state_dict(tmp_path / "epoch_3.pt")
        assert all(torch.equal(read.tensors[name], tensor) for name, tensor in SMALL.items())


def test_openais_three_numbers_masks_and_positions_are_no_weights(tmp_path):
    extra = {"input_resolution": torch.tensor(224), "context_length": 77, "vocab_size": torch.tensor(49408)}
    extra |= {"attn_mask": torch.ones(2, 2), "text.transformer.embeddings.position_ids": torch.arange(3)}
    assert list(read_state_dict(saved(tmp_path, SMALL | extra)).tensors) == list(SMALL)


def test_types_stay_as_they_are(tmp_path):
    mixed = {"visual.proj": torch.ones(2, dtype=torch.float16), "logit_scale": torch.ones((), dtype=torch.bfloat16)}
    assert {n: t.dtype for n, t in read_state_dict(saved(tmp_path, mixed)).tensors.items()} == {
        n: t.dtype for n, t in mixed.items()
    }


@pytest.mark.filterwarnings("ignore")  # of PyTorch, about what is tested here
@pytest.mark.parametrize("half", [False, True])
def test_torchscript_archive_is_read_without_being_run(tmp_path, half):
    """As OpenAI publishes its models: traced, in half precision, with three numbers beside the weights."""
    model = tiny_clip(quick_gelu=True)
    if half:
        model = model.half()
    for name, number in (("input_resolution", 16), ("context_length", 77), ("vocab_size", 49408)):
        model.register_buffer(f"{name}_", torch.tensor(number))
    image = torch.zeros(1, 3, 16, 16, dtype=torch.float16 if half else torch.float32)
    tokens = torch.zeros(1, 77, dtype=torch.int)
    traced = torch.jit.trace_module(model, {"encode_image": image, "encode_text": tokens}, check_trace=False)
    torch.jit.save(traced, tmp_path / "ViT.pt")
    read = read_state_dict(tmp_path / "ViT.pt")
    expected = {
        name: tensor for name, tensor in model.state_dict().items() if name != "attn_mask" and not name.endswith("_")
    }
    assert {name for name in read.tensors if not name.endswith("_")} == set(expected)
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in expected.items())
    assert read.activation == "quickgelu"


def test_head_by_itself_and_head_of_a_classifier_have_one_name(tmp_path):
    for content in (
        {"weight": torch.ones(3, 2), "bias": torch.zeros(3)},
        {"weight": torch.ones(3, 2)},
        {"classification_head.weight": torch.ones(3, 2), "image_encoder.model.visual.proj": torch.ones(1)},
    ):
        head = read_state_dict(saved(tmp_path, content)).head
        assert {name: tuple(tensor.shape) for name, tensor in head.items()} == {
            "classifier.weight": (3, 2),
            "classifier.bias": (3,),
        }


def test_image_tower_by_itself_gets_its_prefix(tmp_path):
    tower = {name.removeprefix("visual."): each for name, each in tiny_weights().items() if name.startswith("visual.")}
    assert set(read_state_dict(saved(tmp_path, tower)).tensors) == {f"visual.{name}" for name in tower}


def test_safetensors_are_known_by_what_they_begin_with(tmp_path):
    for name in ("w.safetensors", "w.ckpt"):
        save_file(prefixed("module."), tmp_path / name)
        assert set(read_state_dict(tmp_path / name).tensors) == set(SMALL)


REFUSED = {
    "numbers": (5, "holds no weights, but a int"),
    "nothing": ({}, "holds no weights, but an empty dict"),
    "a training without a model": ({"epoch": 3, "optimizer": {}}, "holds no weights, but a dict of epoch, optimizer"),
    "words": ({"a": "b"}, "holds no weights, but a dict of a"),
    "two models": (
        {"module.logit_scale": torch.ones(1), "logit_scale": torch.ones(1)},
        "holds two models: module.logit_scale and",
    ),
    "a module without weights": (torch.nn.GELU(), "holds no weights, but a torch.nn.modules.activation.GELU"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_model_is_said(tmp_path, case):
    content, words = REFUSED[case]
    with pytest.raises(ModelError, match=f"w.pt {words}"):
        read_state_dict(saved(tmp_path, content))


class ClassificationHead(torch.nn.Linear):
    """As in the papers' code, over features of any length."""

    normalize = True

    def __init__(self):
        super().__init__(2, 3)
        self.normalize = False


def test_head_over_features_of_any_length_is_refused(tmp_path):
    (tmp_path / "head.pt").write_bytes(pickle.dumps(ClassificationHead()))
    with pytest.raises(ModelError, match=r"head\.pt has a head over features of any length"):
        read_state_dict(tmp_path / "head.pt")


def test_modules_within_themselves_end(tmp_path):
    module = torch.nn.Module()
    module.again = module
    with pytest.raises(ModelError, match="modules within modules without end"):
        read_state_dict(saved(tmp_path, module))
    zip_of(tmp_path, {"a/data.pkl": b"}q\x01S'model'\nh\x01s."})
    with pytest.raises(ModelError, match="holds no weights"):
        read_state_dict(tmp_path / "w.pt")

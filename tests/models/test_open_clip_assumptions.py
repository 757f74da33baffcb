"""What wisepatch assumes of open_clip is checked when a model is loaded."""

import copy
from importlib.metadata import version

import open_clip
import pytest
import torch
from torchvision import transforms

from wisepatch.config import ModelConfig
from wisepatch.errors import ModelError
from wisepatch.models.clip import load_clip
from wisepatch.models.open_clip_assumptions import check_assumptions, split_transform


@pytest.fixture(scope="module")
def clip():
    return load_clip(ModelConfig("demo", ""))


def refused(reason, model, tokenizer):
    with pytest.raises(ModelError, match=reason) as caught:
        check_assumptions(model, tokenizer)
    assert str(caught.value).startswith(
        f"open_clip_torch {version('open_clip_torch')} is not as wisepatch expects it: "
    )
    assert "install another version of open_clip_torch" in caught.value.hint


def test_model_without_a_part_that_is_used_is_refused(clip):
    model = copy.deepcopy(clip.model)
    del model.attn_mask
    refused("CLIP has no attn_mask", model, clip.tokenizer)
    model = copy.deepcopy(clip.model)
    del model.visual.preprocess_cfg
    refused(r"the model has no visual\.preprocess_cfg", model, clip.tokenizer)
    visual = {"image_size": 32, "patch_size": 8, "width": 64, "head_width": 16, "layers": 2}
    text = {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=32, vision_cfg=visual, text_cfg=text)
    model.visual.preprocess_cfg = {}
    del model.visual.transformer.resblocks[1].ls_2
    refused("ResidualAttentionBlock has no ls_2", model, clip.tokenizer)


def test_tokenizer_of_variable_length_or_with_another_end_token_is_refused(clip):
    refused(r"does not pad to the context, but to \(1, 3\)", clip.model, lambda *_, **__: torch.ones(1, 3))
    tokens = torch.tensor([[9, 1, *[0] * 31]])
    refused("the end token is not the largest", clip.model, lambda *_, **__: tokens)


def test_transform_with_other_last_steps_is_refused_and_cannot_be_split(clip, monkeypatch):
    other = transforms.Compose([*clip.transform.transforms, torch.nn.Identity()])
    assert split_transform(other) is None
    monkeypatch.setattr(open_clip.transform, "image_transform_v2", lambda *_, **__: other)
    with pytest.raises(ModelError, match="its transform does not end in ToTensor and Normalize"):
        load_clip(ModelConfig("demo", ""))


def test_renamed_class_is_refused(clip, monkeypatch):
    monkeypatch.delattr(open_clip.transformer, "QuickGELU")
    refused(r"open_clip\.transformer has no QuickGELU", clip.model, clip.tokenizer)


def test_check_is_made_when_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr("wisepatch.models.clip.load_tokenizer", lambda _: lambda *_, **__: torch.ones(1, 3))
    with pytest.raises(ModelError, match="is not as wisepatch expects it"):
        load_clip(ModelConfig("demo", ""))

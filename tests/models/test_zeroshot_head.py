"""Prompts through the text tower: tokens, features as short as the texts allow, heads and their cache."""

import open_clip
import pytest
import torch

from wisepatch.config import ModelConfig
from wisepatch.errors import ModelError
from wisepatch.models import zeroshot_head as head
from wisepatch.models.clip import load_clip
from wisepatch.models.zeroshot_head import head_key, text_features, tokenize, zeroshot_head
from wisepatch.store.checkpoints import Store

DEMO = ModelConfig("demo", "")
CLASSES, TEMPLATES = ("circle", "a rather long name of a class", "star"), ("a photo of a {}.", "{}")


@pytest.fixture(scope="module")
def clip():
    return load_clip(DEMO)


def encode(clip, texts):
    tokens, lengths = tokenize(clip, texts)
    return text_features(clip.model, tokens[:, : int(lengths.max())])


def test_short_texts_give_the_features_of_padded_ones(clip):
    texts = [
        "a",
        'a photo of the number: "seven".',
        "a photo of a very large and very red square on a striped background",
    ]
    with torch.no_grad():
        padded = clip.model.encode_text(clip.tokenizer(texts), normalize=True)
        short = encode(clip, texts)
    assert (short - padded).abs().max() < 1e-6


def test_text_longer_than_the_context_is_named(clip):
    with pytest.raises(ModelError, match=r"the prompt 'word word .* is longer than the 32 tokens"):
        encode(clip, ["fine", "word " * 31])
    with torch.no_grad():
        assert len(encode(clip, ["word " * 30])) == 1


def test_head_is_the_normalised_mean_of_normalised_prompts_times_the_scale(clip):
    head = zeroshot_head(clip, CLASSES, TEMPLATES)
    with torch.no_grad():
        for row, name in zip(head, CLASSES, strict=True):
            tokens = clip.tokenizer([t.format(name) for t in TEMPLATES])
            mean = clip.model.encode_text(tokens, normalize=True).mean(0)
            expected = mean / mean.norm() * clip.model.logit_scale.exp()
            assert torch.allclose(row, expected, atol=1e-4)
    assert head.dtype == torch.float32


def test_head_does_not_depend_on_how_classes_are_batched(clip, monkeypatch):
    whole = zeroshot_head(clip, CLASSES, TEMPLATES)
    monkeypatch.setattr(head, "TEXTS_PER_BATCH", 1)
    assert torch.allclose(zeroshot_head(clip, CLASSES, TEMPLATES), whole, atol=1e-5)


def test_head_is_made_where_the_store_cannot_be_written_and_found_where_it_has_one(clip, tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    first = zeroshot_head(clip, CLASSES, TEMPLATES, store)

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("wisepatch.files.tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("wisepatch.store.cache.locked", refuse)
    assert len(zeroshot_head(clip, CLASSES[:2], TEMPLATES, store)) == 2
    monkeypatch.setattr(head, "_compute_head", None)
    assert torch.equal(zeroshot_head(clip, CLASSES, TEMPLATES, store), first)


def test_cached_head_is_found_again_and_never_stale(clip, tmp_path):
    store = Store(tmp_path)
    first = zeroshot_head(clip, CLASSES, TEMPLATES, store)
    assert len(list((store.root / "cache" / "heads").glob("[!.]*"))) == 1
    assert torch.equal(zeroshot_head(clip, CLASSES, TEMPLATES, store), first)
    hashes = {
        head_key(clip, CLASSES, TEMPLATES),
        head_key(clip, CLASSES[::-1], TEMPLATES),
        head_key(clip, CLASSES, TEMPLATES[:1]),
    }
    changed = load_clip(DEMO)
    with torch.no_grad():
        changed.model.text_projection[0, 0] += 1
    hashes.add(head_key(changed, CLASSES, TEMPLATES))
    assert len(hashes) == 4
    assert not torch.equal(zeroshot_head(changed, CLASSES, TEMPLATES, store), first)
    with torch.no_grad():
        changed.model.text_projection[0, 0] -= 1
        next(changed.model.visual.parameters()).zero_()
    assert head_key(changed, CLASSES, TEMPLATES) in hashes  # the image tower has no part in it


def test_head_depends_on_the_activation_too(clip):
    import copy

    quick = copy.copy(clip)
    object.__setattr__(quick, "model", copy.deepcopy(clip.model))
    for block in quick.model.transformer.resblocks:
        block.mlp.gelu = open_clip.model.QuickGELU()
    assert head_key(quick, CLASSES, TEMPLATES) != head_key(clip, CLASSES, TEMPLATES)


def test_head_is_open_clips_own_and_encodes_every_prompt_once(clip, monkeypatch):
    classes = ["circle", "a very long name of a square", "star", "circle", "ring"]
    templates = ["a photo of a {}.", "{}", "an {} that is drawn on paper by hand", "a photo of a {}."]
    encoded = []
    original = head.text_features
    monkeypatch.setattr(head, "TEXTS_PER_BATCH", 3)
    monkeypatch.setattr(
        head,
        "text_features",
        lambda model, tokens: (encoded.append(tuple(tokens.shape)), original(model, tokens))[1],
    )
    ours = zeroshot_head(clip, classes, templates)
    with torch.no_grad():
        theirs = (
            open_clip.build_zero_shot_classifier(
                clip.model, clip.tokenizer, classes, [lambda c, t=t: t.replace("{}", c) for t in templates]
            ).T
            * clip.model.logit_scale.exp()
        )
    assert (ours - theirs).abs().max() < 1e-4  # of logits up to 100
    assert [rows for rows, _ in encoded] == [3] * 4  # different names times different templates
    lengths = [length for _, length in encoded]
    assert lengths == sorted(lengths)
    assert lengths[-1] < clip.model.context_length

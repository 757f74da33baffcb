"""Both towers as one module: parameters once each, features and texts as CLIP has them."""

import open_clip
import torch

from tests.tiny_clips import tiny_clip
from wisepatch import Classifier, Clip, ModelConfig
from wisepatch.models.two_towers import TwoTowers, shortened
from wisepatch.models.zeroshot_head import tokenize


def towers():
    model = tiny_clip()
    clip = Clip(ModelConfig("tiny", ""), model, None, None, open_clip.get_tokenizer("ViT-B-32"))
    return clip, TwoTowers(clip, Classifier(model.visual, torch.ones(3, 16)))


def test_every_parameter_of_the_clip_is_there_once():
    clip, both = towers()
    own = [id(each) for each in both.parameters()]
    assert len(own) == len(set(own))
    assert {id(each) for each in clip.model.parameters()} | {id(both.weight), id(both.bias)} == set(own)
    assert {name.split(".")[0] for name in both.state_dict()} == {"visual", "text", "weight", "bias"}


def test_tokens_give_features_of_images_and_texts_and_their_scale():
    clip, both = towers()
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    tokens, lengths = tokenize(clip, ["a cat", "a photo of a dog", "one"])
    few = shortened(clip, tokens, lengths)
    assert few.shape == (3, int(lengths.max()))
    with torch.no_grad():
        seen, texts, scale = both(images, tokens=few)
        assert torch.allclose(seen, clip.model.encode_image(images, normalize=True), atol=1e-6)
        assert torch.allclose(texts, clip.model.encode_text(tokens, normalize=True), atol=1e-6)
        assert torch.equal(scale, clip.model.logit_scale.exp())
        assert torch.equal(both(images), Classifier(clip.model.visual, torch.ones(3, 16))(images))

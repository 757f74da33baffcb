"""Random CLIPs of a tiny size, in the architectures that people have."""

import open_clip
import torch

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
VISION = {
    "vit": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
}


def tiny_clip(kind="vit", *, quick_gelu=False, seed=0, **text):
    torch.manual_seed(seed)
    return open_clip.CLIP(16, VISION[kind], TEXT | text, quick_gelu=quick_gelu).eval()


def tiny_weights(kind="vit", **settings):
    """The weights of one, without the mask that is made anew."""
    return {name: tensor for name, tensor in tiny_clip(kind, **settings).state_dict().items() if name != "attn_mask"}

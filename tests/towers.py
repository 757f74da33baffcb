"""Tiny CLIPs of every shape that is published: as settings of open_clip, with random weights, in a store."""

import json

import open_clip
import torch

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "patch_size": 8, "width": 64, "head_width": 16, "layers": 2}
SHAPES = {
    "vit-quickgelu": ({"embed_dim": 24, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT}, {}),
    "vit": (
        {"embed_dim": 24, "custom_text": True, "vision_cfg": {**VIT, "mlp_ratio": 3.0, "norm_kwargs": {"eps": 1e-3}},
         "text_cfg": {**TEXT, "act_kwargs": {"approximate": "tanh"}}},
        {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "squash"},
    ),
    "resnet": (
        {"embed_dim": 24, "quick_gelu": True, "text_cfg": TEXT,
         "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": 32, "patch_size": None}}, {},
    ),
    "siglip": (
        {"embed_dim": 64, "init_logit_bias": -10, "custom_text": True,
         "vision_cfg": {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
         "text_cfg": {**TEXT, "width": 64, "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
                      "norm_kwargs": {"eps": 1e-6}}},
        {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    ),
    "coca": (
        {"embed_dim": 24, "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
         "custom_text": True,
         "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
         "multimodal_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}, {},
    ),
}  # fmt: skip


def save_shape(store, folder, shape, **more):
    """Save a random CLIP of a shape in a store; its settings lie in ``folder``. Every tensor differs from its initialisation."""
    model, preprocessing = SHAPES[shape]
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocessing}))
    torch.manual_seed(len(shape))
    weights = {  # CoCa leaves a tensor as its memory was found
        name: tensor.nan_to_num(0).clamp(-10, 10) + 0.05 * torch.randn(tensor.shape)
        if tensor.is_floating_point() and "running_var" not in name
        else tensor
        for name, tensor in open_clip.create_model(f"local-dir:{folder}").state_dict().items()
    }
    names = {"kind": "zeroshot", "name": shape, "model": {"model": f"local-dir:{folder}", "pretrained": ""}}
    return store.save(weights, **names | more), weights

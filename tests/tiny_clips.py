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


SIGLIP = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
    "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
}


def tiny_siglip(seed=0):
    """One of SigLIP's shape: timm's tower with an attention pool, a text tower that reads its last token, a bias of logits."""
    torch.manual_seed(seed)
    return open_clip.CustomTextCLIP(**{name: each for name, each in SIGLIP.items() if name != "custom_text"}).eval()


def big_vision(model):
    """Write a SigLIP-shaped model as big_vision does: attention by heads, kernels transposed."""
    arrays = {"params/t": model.logit_scale.reshape(1), "params/b": model.logit_bias.reshape(1)}
    state = model.state_dict()

    def layer(name, module, *, conv=False):
        weight = state[f"{module}.weight"]
        arrays[f"params/{name}/kernel"] = weight.permute(2, 3, 1, 0) if conv else weight.T
        arrays[f"params/{name}/bias"] = state[f"{module}.bias"]

    def norm(name, module):
        arrays[f"params/{name}/scale"], arrays[f"params/{name}/bias"] = (
            state[f"{module}.weight"],
            state[f"{module}.bias"],
        )

    def attention(name, stacked, out, heads):
        for part, weight, bias in stacked:
            arrays[f"params/{name}/{part}/kernel"] = weight.T.reshape(weight.shape[1], heads, -1)
            arrays[f"params/{name}/{part}/bias"] = bias.reshape(heads, -1)
        weight = state[f"{out}.weight"]
        arrays[f"params/{name}/out/kernel"] = weight.reshape(len(weight), heads, -1).permute(1, 2, 0)
        arrays[f"params/{name}/out/bias"] = state[f"{out}.bias"]

    def parts(names, weight, bias):
        return list(zip(names, weight.chunk(len(names)), bias.chunk(len(names)), strict=True))

    qkv, trunk = ("query", "key", "value"), "visual.trunk"
    layer("img/embedding", f"{trunk}.patch_embed.proj", conv=True)
    arrays["params/img/pos_embedding"] = state[f"{trunk}.pos_embed"]
    if f"{trunk}.cls_token" in state:
        arrays["params/img/cls"] = state[f"{trunk}.cls_token"]
    for number, block in enumerate(model.visual.trunk.blocks):
        here, there = f"img/Transformer/encoderblock_{number}", f"{trunk}.blocks.{number}"
        norm(f"{here}/LayerNorm_0", f"{there}.norm1")
        norm(f"{here}/LayerNorm_1", f"{there}.norm2")
        stacked = parts(qkv, state[f"{there}.attn.qkv.weight"], state[f"{there}.attn.qkv.bias"])
        attention(f"{here}/MultiHeadDotProductAttention_0", stacked, f"{there}.attn.proj", block.attn.num_heads)
        layer(f"{here}/MlpBlock_0/Dense_0", f"{there}.mlp.fc1")
        layer(f"{here}/MlpBlock_0/Dense_1", f"{there}.mlp.fc2")
    norm("img/Transformer/encoder_norm", f"{trunk}.norm")
    pool = f"{trunk}.attn_pool"
    arrays["params/img/MAPHead_0/probe"] = state[f"{pool}.latent"]
    stacked = [("query", state[f"{pool}.q.weight"], state[f"{pool}.q.bias"])]
    stacked += parts(qkv[1:], state[f"{pool}.kv.weight"], state[f"{pool}.kv.bias"])
    heads = model.visual.trunk.attn_pool.num_heads
    attention("img/MAPHead_0/MultiHeadDotProductAttention_0", stacked, f"{pool}.proj", heads)
    norm("img/MAPHead_0/LayerNorm_0", f"{pool}.norm")
    layer("img/MAPHead_0/MlpBlock_0/Dense_0", f"{pool}.mlp.fc1")
    layer("img/MAPHead_0/MlpBlock_0/Dense_1", f"{pool}.mlp.fc2")
    arrays["params/txt/Embed_0/embedding"] = state["text.token_embedding.weight"]
    arrays["params/txt/pos_embedding"] = state["text.positional_embedding"][None]
    for number, block in enumerate(model.text.transformer.resblocks):
        here, there = f"txt/Encoder_0/encoderblock_{number}", f"text.transformer.resblocks.{number}"
        norm(f"{here}/LayerNorm_0", f"{there}.ln_1")
        norm(f"{here}/LayerNorm_1", f"{there}.ln_2")
        stacked = parts(qkv, state[f"{there}.attn.in_proj_weight"], state[f"{there}.attn.in_proj_bias"])
        attention(f"{here}/MultiHeadDotProductAttention_0", stacked, f"{there}.attn.out_proj", block.attn.num_heads)
        layer(f"{here}/MlpBlock_0/Dense_0", f"{there}.mlp.c_fc")
        layer(f"{here}/MlpBlock_0/Dense_1", f"{there}.mlp.c_proj")
    norm("txt/Encoder_0/encoder_norm", "text.ln_final")
    layer("txt/head", "text.text_projection")
    return {name: tensor.detach().numpy() for name, tensor in arrays.items()}

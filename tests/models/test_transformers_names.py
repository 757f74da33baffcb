"""transformers' names: renamed to open_clip's, the logits are transformers' own; adapters are merged as PEFT merges them."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.tiny_clips import tiny_clip
from wisepatch.errors import ModelError
from wisepatch.models.sources import read_source
from wisepatch.models.transformers_names import adapter_deltas, settings, to_open_clip

VISION = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
    "projection_dim": 16,
}
TEXT = {
    "hidden_size": 8,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "projection_dim": 16,
}


def as_transformers(state):
    """A tiny open_clip state dict under transformers' names, written out here a second time."""
    layer = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    plain = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
    }
    norms = {
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "ln_final": "text_model.final_layer_norm",
    }
    renamed = {}
    for name, tensor in state.items():
        stem, _, kind = name.rpartition(".")
        if name in plain:
            renamed[plain[name]] = tensor
        elif stem in norms:
            renamed[f"{norms[stem]}.{kind}"] = tensor
        elif name in ("visual.proj", "text_projection"):
            renamed[f"{name.partition('.')[0].replace('visual', 'visual_projection')}.weight"] = tensor.T.contiguous()
        elif "resblocks" in name:
            tower = "vision_model" if name.startswith("visual.") else "text_model"
            number, rest = name.partition("resblocks.")[2].split(".", 1)
            prefix = f"{tower}.encoder.layers.{number}."
            if "in_proj" in rest:
                for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                    renamed[f"{prefix}self_attn.{part}_proj.{rest.rpartition('_')[2]}"] = piece.clone()
            else:
                part, _, kind = rest.rpartition(".")
                renamed[f"{prefix}{layer[part]}.{kind}"] = tensor
    return renamed


def test_names_there_and_back_without_transformers():
    state = {name: tensor for name, tensor in tiny_clip().state_dict().items() if name != "attn_mask"}
    renamed = as_transformers(state)
    back = to_open_clip(renamed)
    assert set(back) == set(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    del renamed["vision_model.encoder.layers.0.self_attn.k_proj.bias"]
    with pytest.raises(ModelError, match=r"visual\.transformer\.resblocks\.0\.attn\.in_proj_bias lacks k_proj"):
        to_open_clip(renamed)
    with pytest.raises(ModelError, match=r"a\.b is no tensor of a CLIPModel"):
        to_open_clip({"a.b": torch.ones(1)})


REFUSED = {
    "another model": ({"model_type": "vit"}, "is a model of the type 'vit'"),
    "SigLIP": ({"model_type": "siglip"}, "is a model of the type 'siglip'"),
    "classification": (
        {"model_type": "clip", "architectures": ["CLIPForImageClassification"]},
        "is a CLIPForImageClassification, whose head reads the mean of all tokens",
    ),
    "activations": (
        {"model_type": "clip", "text_config": {"hidden_act": "gelu"}},
        "has the activation gelu and quick_gelu",
    ),
    "activation": ({"model_type": "clip_vision_model", "hidden_act": "relu"}, "has the activation relu"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_that_are_no_clip_of_open_clips_are_refused(case):
    config, words = REFUSED[case]
    with pytest.raises(ModelError, match=f"repo {words}"):
        settings(config, "repo")


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "IA3"},
        {"peft_type": "LORA", "use_dora": True},
        {"peft_type": "LORA", "init_lora_weights": "pissa_niter_4"},
        {"peft_type": "LORA", "init_lora_weights": "olora"},
        {"peft_type": "LORA", "init_lora_weights": ["loftq"]},
        {"peft_type": "LORA", "bias": "all"},
        {"peft_type": "LORA", "fan_in_fan_out": True},
        {"peft_type": "LORA", "alpha_pattern": {"(a+)+": 3}},
    ],
)
def test_adapters_of_other_kinds_are_refused(config):
    module = "base_model.model.vision_model.encoder.layers.0.mlp.fc1"
    pair = {f"{module}.lora_A.weight": torch.ones(2, 3), f"{module}.lora_B.weight": torch.ones(4, 2)}
    with pytest.raises(ModelError, match=r"adapter of another kind|is no name of a module"):
        adapter_deltas(config, pair, "adapter")


def test_adapter_is_scaled_and_lies_where_its_part_of_the_attention_does():
    module = "base_model.model.vision_model.encoder.layers.0.self_attn.v_proj"
    pair = {f"{module}.lora_A.weight": torch.ones(4, 3), f"{module}.lora_B.weight": torch.ones(3, 4)}
    for more, scale in (({}, 2.0), ({"use_rslora": True}, 4.0), ({"alpha_pattern": {"v_proj": 4}}, 1.0)):
        added, replaced = adapter_deltas({"peft_type": "LORA", "lora_alpha": 8, "r": 4, **more}, pair, "adapter")
        (delta,) = added.values()
        assert torch.equal(delta, torch.cat([torch.zeros(6, 3), torch.full((3, 3), 4 * scale)]))
        assert not replaced


def folder_of(path, config, weights):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file(weights, path / "model.safetensors")
    return path


def test_folder_of_transformers_needs_no_transformers(tmp_path):
    weights = as_transformers({n: t for n, t in tiny_clip().state_dict().items() if n != "attn_mask"})
    config = {"model_type": "clip", "vision_config": {"num_attention_heads": 1, "hidden_act": "gelu"}}
    config["text_config"] = {"num_attention_heads": 1, "hidden_act": "gelu"}
    source = read_source(str(folder_of(tmp_path / "clip", config, weights)))
    assert (source.found.activation, source.found.heads) == ("gelu", {"visual": 1, "text": 1})
    assert "visual.proj" in source.found.tensors
    preprocessor = {
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "size": {"shortest_edge": 16},
    }
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    assert read_source(str(tmp_path / "clip")).beyond["preprocess_cfg"]["mean"] == [0.5, 0.5, 0.5]
    (tmp_path / "clip" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"clip holds no weights") as caught:
        read_source(str(tmp_path / "clip"))
    assert "model.safetensors" in caught.value.hint
    (tmp_path / "clip" / "config.json").unlink()
    with pytest.raises(ModelError, match="clip holds no settings of a model"):
        read_source(str(tmp_path / "clip"))


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


def clip_model(transformers, **more):
    torch.manual_seed(0)
    config = transformers.CLIPConfig(vision_config=VISION | more, text_config=TEXT | more, projection_dim=16)
    return transformers.CLIPModel(config).eval()


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")  # of transformers, about itself
@pytest.mark.parametrize(
    "more",
    [{}, {"hidden_act": "gelu"}, {"layer_norm_eps": 1e-3, "hidden_act": "gelu_pytorch_tanh"}],
    ids=["quick", "gelu", "tanh"],
)
def test_logits_are_those_of_transformers(tmp_path, transformers, more):
    import wisepatch as wp

    model = clip_model(transformers, **more)
    model.save_pretrained(tmp_path / "clip")
    store = wp.Store(tmp_path / "store")
    (checkpoint,) = wp.import_checkpoints(store, tmp_path / "clip").checkpoints
    clip = wp.load_clip(wp.ModelConfig.from_json(checkpoint.model), wp.load_weights(store, checkpoint)).model
    image, tokens = torch.randn(3, 3, 32, 32), clip_tokens()
    with torch.no_grad():
        expected = model(input_ids=tokens, pixel_values=image).logits_per_image
        scale = clip.logit_scale.exp()
        logits = scale * clip.encode_image(image, normalize=True) @ clip.encode_text(tokens, normalize=True).T
    assert torch.allclose(logits, expected, atol=1e-5, rtol=1e-5)


def clip_tokens():
    import open_clip

    return open_clip.tokenize(["a dog", "a cat on a mat"]).long()


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["CLIPVisionModel", "CLIPVisionModelWithProjection"])
def test_vision_tower_takes_what_it_lacks_from_the_first(tmp_path, transformers, kind):
    import wisepatch as wp

    model = clip_model(transformers)
    model.save_pretrained(tmp_path / "clip")
    torch.manual_seed(1)
    tower = getattr(transformers, kind)(transformers.CLIPVisionConfig(**VISION)).eval()
    tower.save_pretrained(tmp_path / "tower")
    store = wp.Store(tmp_path / "store")
    first, second = wp.import_checkpoints(store, [tmp_path / "clip", tmp_path / "tower"]).checkpoints
    assert second.trained_from == (first.id,)
    clip = wp.load_clip(wp.ModelConfig.from_json(second.model), wp.load_weights(store, second)).model
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        seen = tower(image)
        expected = seen.image_embeds if "Projection" in kind else model.visual_projection(seen.pooler_output)
        assert torch.allclose(clip.encode_image(image), expected, atol=1e-5)
    if kind == "CLIPVisionModel":
        with pytest.raises(wp.WisepatchError, match="tower is an image tower without its projection"):
            wp.import_checkpoints(store, tmp_path / "tower")


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True, "alpha_pattern": {"fc1": 3}, "rank_pattern": {"q_proj": 4}}]
)
def test_adapter_is_merged_as_peft_merges_it(tmp_path, transformers, options):
    peft = pytest.importorskip("peft")
    import wisepatch as wp

    clip_model(transformers).save_pretrained(tmp_path / "clip")
    config = peft.LoraConfig(
        r=2,
        lora_alpha=4,
        target_modules=["q_proj", "v_proj", "fc1", "visual_projection", "patch_embedding", "token_embedding"],
        modules_to_save=["text_projection"],
        **options,
    )
    adapted = peft.get_peft_model(transformers.CLIPModel.from_pretrained(tmp_path / "clip"), config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload()
    store = wp.Store(tmp_path / "store")
    first, second = wp.import_checkpoints(store, tmp_path / "adapter").checkpoints
    assert (first.kind, second.kind, second.trained_from) == ("zeroshot", "finetuned", (first.id,))
    weights, expected = wp.load_weights(store, second), to_open_clip(merged.state_dict())
    assert set(weights) == set(expected)
    assert max((weights[name] - tensor).abs().max() for name, tensor in expected.items()) < 1e-6
    (again,) = wp.import_checkpoints(store, tmp_path / "adapter", parent=first, name="x").checkpoints[1:]
    assert again.files == second.files

"""Settings of models from elsewhere: what would run code, and what no model has."""

import json
import sys
from types import ModuleType

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import changed, damaged, or_an_error_for_users
from wisepatch.config import ModelConfig
from wisepatch.errors import ModelError
from wisepatch.models.clip import EMBEDDED, describe, load_clip, save_tokenizer
from wisepatch.models.model_files import CONFIG_NAME, load_tokenizer, read_description
from wisepatch.store.recipes import load_weights

EMBEDDED_CONFIG = json.loads((EMBEDDED / CONFIG_NAME).read_text())
TOKENIZER = {"hf_tokenizer_name": "any", "tokenizer_kwargs": {"trust_remote_code": True}}
AUTO_MAP = {"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}


@pytest.fixture
def untouched(monkeypatch):
    """Neither open_clip nor transformers may be asked for a model or a tokenizer."""
    for name in ("create_model", "get_tokenizer"):
        monkeypatch.setattr(open_clip, name, lambda *_, **__: pytest.fail("open_clip was called"))


def local_dir(folder, text=(), vision=(), files=(), **other):
    """The embedded model with other settings, and JSON files beside it."""
    folder.mkdir(parents=True)
    config = json.loads(json.dumps(EMBEDDED_CONFIG))
    config["model_cfg"]["text_cfg"] |= dict(text)
    config["model_cfg"]["vision_cfg"] |= dict(vision)
    (folder / CONFIG_NAME).write_text(json.dumps(config | other))
    for name, content in dict(files).items():
        (folder / name).write_text(json.dumps(content))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    return ModelConfig(f"local-dir:{folder}", "")


ASKING = [
    ("trust_remote_code", {"text": TOKENIZER}),
    ("trust_remote_code", {"text": {"tokenizer_kwargs": {"trust_remote_code": True}}}),
    ("trust_remote_code", {"vision": {"timm_kwargs": [{"trust_remote_code": 1}]}}),
    ("code_revision", {"text": {"tokenizer_kwargs": {"code_revision": "main"}}}),
    ("auto_map", {"text": {"hf_tokenizer_name": "any"}, "files": {"tokenizer_config.json": AUTO_MAP}}),
    ("auto_map", {"text": {"hf_tokenizer_name": "any"}, "files": {"config.json": AUTO_MAP}}),
    (
        "tokenizer_class",
        {"text": {"hf_tokenizer_name": "any"}, "files": {"tokenizer_config.json": {"tokenizer_class": "own.Tokenizer"}}},
    ),
    ("trust_remote_code", {"also": {"trust_remote_code": True}}),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "settings"), ASKING)
@pytest.mark.parametrize(
    "use", [load_clip, lambda model: load_clip(model, {}), describe, lambda m: save_tokenizer(m, None)]
)
def test_a_model_that_asks_to_run_its_own_code_is_refused_by_name(tmp_path, untouched, setting, settings, use):
    model = local_dir(tmp_path / "model", **settings)
    with pytest.raises(ModelError, match=rf"local-dir:.*model asks to run code of its own: {setting} in ") as caught:
        use(model)
    assert "no code of a model is run" in caught.value.hint
    assert not (tmp_path / "model" / "ran").exists()


def test_a_checkpoint_of_a_store_that_names_such_a_model_inside_it_is_refused(run_store, cli, shapes):
    folder = run_store.root / "models" / "theirs"
    weights = load_weights(run_store, run_store.find("zeroshot"))
    theirs = run_store.save(
        weights, kind="zeroshot", name="theirs", model=local_dir(folder, TOKENIZER).to_json(), training="zeroshot"
    )
    result = cli("eval", theirs.id, "--task", shapes)
    assert result.exit_code == 1
    assert "asks to run code of its own: trust_remote_code" in result.stderr
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(("setting", "settings"), ASKING)
def test_the_hub_is_held_to_the_same(tmp_path, monkeypatch, untouched, setting, settings):
    folder = tmp_path / "someone" / "model"
    local_dir(folder, **settings)
    monkeypatch.setattr(
        open_clip.pretrained, "download_pretrained_from_hf", lambda name, filename: tmp_path / "someone" / "model" / filename
    )  # fmt: skip
    for use in (load_clip, describe):
        with pytest.raises(ModelError, match=rf"hf-hub:someone/model asks to run code of its own: {setting}"):
            use(ModelConfig("hf-hub:someone/model", ""))


@pytest.mark.parametrize("key", ["hf_tokenizer_name", "hf_model_name"])
def test_the_repositories_that_a_hub_model_names_are_looked_into(tmp_path, monkeypatch, untouched, key):
    local_dir(tmp_path / "a", {key: "someone/else"})
    (tmp_path / "a" / "config.json").write_text(json.dumps(AUTO_MAP))
    fetched = []

    def fetch(repository, filename):
        fetched.append((repository, filename))
        if filename == "config.json" and repository == "a":
            raise OSError("not there")
        return tmp_path / "a" / filename

    monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_hf", fetch)
    with pytest.raises(ModelError, match="auto_map"):
        load_clip(ModelConfig("hf-hub:a", ""))
    assert ("someone/else", "config.json") in fetched


def test_a_tokenizer_is_never_trusted_with_code(monkeypatch):
    seen = {}

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(name, **options):
            seen.update(options)

    transformers = ModuleType("transformers")
    transformers.AutoTokenizer = AutoTokenizer
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    load_tokenizer("ViT-B-16-SigLIP2")
    assert seen["trust_remote_code"] is False
    assert "trust_remote_code" not in vars(load_tokenizer("ViT-B-32"))


def test_settings_that_say_no_to_code_are_those_of_any_model(tmp_path):
    settings = {"text": {"tokenizer_kwargs": {}}, "trust_remote_code": False}
    model = local_dir(tmp_path / "model", **settings)
    weights = dict(load_clip(ModelConfig("demo", "")).model.state_dict())
    assert load_clip(model, weights).image_size == (64, 64)


@pytest.mark.parametrize(
    "settings",
    [
        {"model_cfg": 5}, {"model_cfg": {}}, {"model_cfg": None}, {"preprocess_cfg": [1]}, {"text": {"layers": 10**9}},
        {"text": {"layers": 10**400}}, {"text": {"layers": "2"}}, {"text": {"layers": -1}}, {"text": {"heads": 0}},
        {"text": {"width": 1e300}}, {"text": {"width": None}}, {"text": {"context_length": 0}}, {"text": {"vocab_size": 0}},
        {"text": {"hf_model_name": 5}}, {"text": {"nothing": 1}}, {"vision": {"image_size": 10**6}}, {"vision": {"image_size": 0}},
        {"vision": {"image_size": [64]}}, {"vision": {"timm_model_name": "nothing"}}, {"vision": {"timm_model_name": ["a"]}},
        {"preprocess_cfg": {"mean": "a"}}, {"preprocess_cfg": {"size": 10**7}}, {"preprocess_cfg": {"interpolation": "odd"}},
        {"preprocess_cfg": {"nothing": 1}},
    ],
)  # fmt: skip
def test_odd_settings_are_an_error_that_names_the_model(tmp_path, settings):
    model = local_dir(tmp_path / "model", **settings)
    with pytest.raises(ModelError, match="local-dir:"):
        load_clip(model)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"model_cfg": ', "\ud800", "[" * 100_000, '{"a": ' * 20_000])
def test_settings_that_are_no_json_object_are_an_error(tmp_path, text):
    model = local_dir(tmp_path / "model")
    (tmp_path / "model" / CONFIG_NAME).write_text(text, encoding="utf-8", errors="surrogatepass")
    for use in (load_clip, describe):
        with pytest.raises(ModelError, match=r"open_clip_config\.json cannot be read"):
            use(model)


def test_numbers_that_no_model_has_are_an_error_wherever_settings_are_read(tmp_path):
    for number in (10**400, -(10**400), 1e300, 10**9):
        with pytest.raises(ModelError, match="layers is a number that no model has"):
            describe(local_dir(tmp_path / str(number)[:20] / str(abs(number) > 10**300), {"layers": number}))


def test_settings_are_looked_through_however_deep_they_lie(tmp_path):
    deep = {"trust_remote_code": True}
    for _ in range(400):
        deep = {"a": [deep]}
    with pytest.raises(ModelError, match="asks to run code of its own: trust_remote_code"):
        describe(local_dir(tmp_path / "model", also=deep))


def test_published_weights_with_nan_are_named_before_they_are_used(tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(EMBEDDED, tmp_path / "model")
    weights = load_file(EMBEDDED / "open_clip_model.safetensors")
    weights["visual.head.proj.weight"][0, 0] = torch.inf
    save_file(weights, tmp_path / "model" / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match=r"1 tensor holds NaN or infinities, such as visual\.head\.proj\.weight"):
        load_clip(ModelConfig(f"local-dir:{tmp_path / 'model'}", ""))


whole = json.dumps(EMBEDDED_CONFIG).encode()
asking = {"model_cfg": EMBEDDED_CONFIG["model_cfg"] | {"text_cfg": TOKENIZER}, "preprocess_cfg": {}}


@given(
    st.just(whole).flatmap(damaged)
    | st.sampled_from([EMBEDDED_CONFIG, asking]).flatmap(changed).map(lambda config: json.dumps(config).encode())
)
def test_fuzzed_settings_are_read_or_give_an_error(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "fuzzed-model"
    folder.mkdir(exist_ok=True)
    (folder / CONFIG_NAME).write_bytes(data)
    name = f"local-dir:{folder}"
    with or_an_error_for_users:
        description = read_description(ModelConfig(name, ""), name)
        assert '"trust_remote_code": true' not in json.dumps(description)

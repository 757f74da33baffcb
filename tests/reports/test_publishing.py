"""Export for others: a classifier that runs as its card says, what comes back in, and what a hub holds after a push."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import wisepatch as wp
from tests.loopback_hub import loopback_hub
from tests.samples import fails, recipes
from tests.towers import save_shape
from wisepatch.errors import UnknownNameError, UsageError
from wisepatch.files import sha256
from wisepatch.models.exporting import check_folder
from wisepatch.models.hub import HubError

NAMES = ("a cat", "a dog", "no animal")


def python_block(folder):
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL).group(1)


def fresh(code, folder):
    """Run code in a process without wisepatch; return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code += "\nimport sys\nassert not [name for name in sys.modules if name.startswith('wisepatch')]\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_classifier_runs_by_the_ten_lines_of_its_card_in_a_fresh_process(tmp_path):
    """Probabilities are those of predict to 1e-5, for a ViT, a ResNet, a SigLIP and a CoCa, with a head from text."""
    store, code, expected = wp.Store(tmp_path / "store"), "import json\n", []
    Image.linear_gradient("L").resize((50, 40)).save(tmp_path / "photo.jpg")
    for shape in ("vit", "resnet", "siglip", "coca"):
        checkpoint, _ = save_shape(store, tmp_path / f"source-{shape}", shape)
        wp.export(store, checkpoint, tmp_path / shape, format="classifier", classnames=NAMES, templates="{} on a photo")
        block = python_block(tmp_path / shape)
        assert len([line for line in block.splitlines() if line]) == 10  # with three of imports
        code += block + "print(json.dumps(dict(zip(about['classes'], probabilities.tolist()))))\n"
        (answer,) = wp.predict(
            checkpoint, tmp_path / "photo.jpg", classnames=NAMES, templates=("{} on a photo",), store=store
        )
        expected.append(dict(zip(answer.classes, answer.probabilities, strict=True)))
    lines = fresh(code, tmp_path)
    assert [json.loads(line) for line in lines if line.startswith("{")] == [
        pytest.approx(each, abs=1e-5) for each in expected
    ]
    assert lines[0].rpartition(" ")[0] in NAMES


def test_classifier_keeps_the_text_tower_and_takes_the_head_that_is_asked_for(tmp_path):
    store = wp.Store(tmp_path / "store")
    _, weights = save_shape(store, tmp_path / "source", "vit")
    head = {"classifier.weight": torch.randn(3, 24), "classifier.bias": torch.randn(3)}
    model = store.find("vit").model
    probe = store.save(
        weights | head, kind="finetuned", name="probe", model=model, head={"task": "animals", "classes": list(NAMES)}
    )
    wp.export(store, probe, tmp_path / "trained", format="classifier")
    kept = load_file(tmp_path / "trained" / "classifier.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in head.items())
    assert set(load_file(tmp_path / "trained" / "open_clip_model.safetensors")) == set(weights)
    done = wp.export(store, probe, tmp_path / "text", format="classifier", classnames=("x", "y"), templates="{}.")
    assert json.loads((tmp_path / "text" / "classifier.json").read_text()) == done.head
    assert done.head == {"task": "classes", "classes": ["x", "y"], "templates": ["{}."]}
    made = load_file(tmp_path / "text" / "classifier.safetensors")
    clip = wp.load_clip(wp.ModelConfig.from_json(model), weights)
    assert torch.allclose(made["classifier.weight"], wp.zeroshot_head(clip, ("x", "y"), ("{}.",)))
    assert not made["classifier.bias"].any()
    hf = wp.export(store, probe, tmp_path / "hf", format="transformers")
    assert set(hf.files) == {"model.safetensors", "classifier.safetensors"}


def test_what_a_format_needs_is_said_before_anything_is_written(run_store, cli, tmp_path):
    zeroshot = run_store.find("zeroshot")
    with pytest.raises(UsageError, match="has no trained head, and was not trained on a task") as caught:
        wp.export(run_store, zeroshot, tmp_path / "new", format="classifier")
    assert "--classnames" in caught.value.hint
    with pytest.raises(UsageError, match="ObjectNet is answered by the head of other classes"):
        wp.export(run_store, zeroshot, tmp_path / "new", format="classifier", task="ObjectNet")
    with pytest.raises(UsageError, match="the format open_clip has no head of its own"):
        wp.export(run_store, zeroshot, tmp_path / "new", task="Shapes")
    with pytest.raises(UnknownNameError, match=r"unknown format 'open-clip'; did you mean open_clip\?"):
        wp.export(run_store, zeroshot, tmp_path / "new", format="open-clip")
    assert cli("export", "zeroshot", "new", "--format", "onnx").exit_code == 2
    fails(cli("export", "finetuned", "new", "--format", "classifier", "--classnames", "a,b", "--task", "Shapes"), 2,
          "2 class names for 10 classes of 'Shapes'")  # fmt: skip
    assert not (tmp_path / "new").exists()


def test_folder_without_permission_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "pathlib.Path.iterdir", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(wp.WisepatchError, match="cannot be written: Permission denied") as caught:
        check_folder(tmp_path)
    assert caught.value.hint == "name another folder"


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the Hub's client itself
def test_what_was_pushed_is_loaded_from_the_hub_again(run_store, cli, tmp_path, monkeypatch):
    with loopback_hub(monkeypatch, tmp_path / "cache") as hub:
        result = cli("export", "finetuned", "mine", "--push", "me/mine", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["address"] == f"{hub.address}/me/mine"
        files = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
        assert hub.repositories["me/mine"] == files
        assert 'create_model_and_transforms("hf-hub:me/mine")' in files["README.md"].decode()
        clip = wp.load_clip(wp.ModelConfig("hf-hub:me/mine", ""))
        weights = wp.load_weights(run_store, run_store.find("finetuned"))
        assert all(torch.equal(tensor, weights[name]) for name, tensor in clip.model.state_dict().items())
        hub.trouble = ("/commit/", 403)
        fails(
            cli("export", "finetuned", "again", "--push", "me/mine"),
            1,
            "may not write for me (403)",
            "hf upload me/mine again",
        )
        assert {path.name for path in (tmp_path / "again").iterdir()} == set(files)
        monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
        with pytest.raises(HubError, match="you are not logged in"):
            wp.export(run_store, "finetuned", tmp_path / "third", push_to="me/mine")
        assert not (tmp_path / "third").exists()


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ("vit-quickgelu", "open_clip"), ("vit-quickgelu", "transformers"), ("vit", "transformers"), ("resnet", "open_clip"),
        ("siglip", "open_clip"), ("vit-quickgelu", "classifier"),
    ],
)  # fmt: skip
def test_what_went_out_comes_back_in_to_the_bit(tmp_path, shape, kind):
    store = wp.Store(tmp_path / "store")
    checkpoint, weights = save_shape(store, tmp_path / "source", shape)
    classes = {"classnames": NAMES} if kind == "classifier" else {}
    wp.export(store, checkpoint, tmp_path / "out", format=kind, **classes)
    (back,) = wp.import_checkpoints(store, tmp_path / "out", name="back").checkpoints
    again = wp.load_weights(store, back)
    apart = "text." if kind == "transformers" else ""  # a text tower that is built apart comes back as one that is not
    weights = {name.removeprefix(apart): tensor for name, tensor in weights.items()}
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())
    assert set(again) - set(weights) == ({"classifier.weight", "classifier.bias"} if classes else set())
    if classes:
        assert back.head["classes"] == list(NAMES)
    photo = Image.linear_gradient("L").resize((50, 40)).convert("RGB")
    clips = [
        wp.load_clip(wp.ModelConfig.from_json(each.model), wp.load_weights(store, each)) for each in (checkpoint, back)
    ]
    with torch.no_grad():
        features = [clip.model.encode_image(clip.transform(photo)[None]) for clip in clips]
    assert torch.equal(*features)


def test_papers_own_files_become_a_classifier_with_their_logits(papers, tmp_path):
    """WiSE-FT's pickles, mixed at 0.5 and exported: open_clip alone gives the logits of the papers' code to 2e-5."""
    import open_clip

    store = wp.Store(tmp_path / "store")
    pair = [papers / "wiseft-zeroshot.pt", papers / "wiseft-finetuned.pt"]
    (whole,) = wp.import_checkpoints(store, papers / "clip-state-dict.pt", activation="quickgelu").checkpoints
    ends = wp.import_checkpoints(store, pair, task="CIFAR10", parent=whole, name="pair").checkpoints
    (mix,) = recipes(store, [0.5], (ends[0], ends[1]))
    wp.export(store, mix, tmp_path / "out", format="classifier")
    expected = json.loads((papers / "wiseft-answers.json").read_text())
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    head = load_file(tmp_path / "out" / "classifier.safetensors")
    photos = torch.stack([transform(Image.open(papers / "photos" / name)) for name in expected["photos"]])
    with torch.no_grad():
        features = model.eval().encode_image(photos, normalize=True)
    logits = features @ head["classifier.weight"].T + head["classifier.bias"]
    assert (logits - torch.tensor(expected["logits"]["0.5"])).abs().max() < 2e-5
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "wisepatch import clip-state-dict.pt --activation quickgelu\n"
        f"wisepatch import wiseft-zeroshot.pt wiseft-finetuned.pt --name pair --parent {whole.name} --task CIFAR10\n"
        "wisepatch interpolate --alpha 0.5 --checkpoint pair/finetuned\n"
    ) in card
    assert f"| {whole.name} | {whole.id} | zeroshot, imported from clip-state-dict.pt" in card
    assert f"imported from wiseft-zeroshot.pt (`{sha256(papers / 'wiseft-zeroshot.pt')}`)" in card


def test_head_whose_class_names_do_not_match_is_not_exported(tmp_path):
    store = wp.Store(tmp_path / "store")
    _, weights = save_shape(store, tmp_path / "source", "vit")
    head = {"classifier.weight": torch.randn(4, 24), "classifier.bias": torch.randn(4)}
    names = {"task": "animals", "classes": list(NAMES)}
    probe = store.save(weights | head, kind="finetuned", name="probe", model=store.find("vit").model, head=names)
    for kind in ("open_clip", "transformers", "classifier"):
        with pytest.raises(
            wp.WisepatchError, match=r"the trained head of probe .* has 4 classes, and 3 names of classes"
        ):
            wp.export(store, probe, tmp_path / "out", format=kind)
    assert not (tmp_path / "out").exists()

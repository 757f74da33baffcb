"""The model card: all that is known of a checkpoint, nothing of the machine, and commands that make it again."""

import re
import shlex

import pytest
from PIL import Image

import wisepatch as wp
from tests.samples import recipes
from wisepatch.reports.making_again import public


@pytest.fixture
def swept(run_store, tmp_path):
    tmp_path.joinpath("data").mkdir()
    sweep = wp.sweep(run_store, tmp_path / "data", tasks="Colors", alphas="0,0.5,1", rule="best-mean", metrics="top1")
    return run_store, sweep


def card_of(store, checkpoint, folder):
    wp.export(store, checkpoint, folder)
    return (folder / "README.md").read_text()


def test_card_of_a_patched_model_has_its_evidence_lineage_and_way_back(swept, tmp_path):
    store, sweep = swept
    card = card_of(store, sweep.chosen, tmp_path / "mine")
    alpha = f"{sweep.choice.alpha:g}"
    assert card.startswith(
        "---\nlibrary_name: open_clip\npipeline_tag: zero-shot-image-classification\ntags:\n- clip\n"
    )
    assert "licence" not in card.partition("---\n\n")[0].replace("license", "licence")
    assert "# mine\n\nthe embedded model of wisepatch (demo), patched on shapes: the weights" in card
    assert f"- **alpha**: {alpha}, chosen by the rule best-mean on validation data among 3 values" in card
    assert "- **supported tasks**: Colors: they were not to get worse" in card
    for row in (row for row in sweep.rows if row["split"] == "test" and row["alpha"] == sweep.choice.alpha):
        interval = f"{100 * row['value']:.1f} ({100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f})"
        assert re.search(rf"\| {row['task']} \| test \| top1 \|.*\*\*{re.escape(interval)}\*\*", card), card
    assert "| task | split | metric | this model | zero-shot | fine-tuned | n |" in card
    with Image.open(tmp_path / "mine" / "sweep.png") as picture:
        assert picture.width > 500
    assert "](sweep.png)" in card
    for each in (store.find("zeroshot"), store.find("finetuned")):
        assert f"| {each.name} | {each.id} | {each.kind} | `{each.files['model.safetensors']}` |" in card
    assert str(tmp_path) not in card
    commands = re.search(r"```console\n(.*?)```", card, re.DOTALL).group(1).splitlines()
    words = shlex.split(commands[0])
    assert words[:8] == ["wisepatch", "patch", "--model", "demo", "--task", "shapes", "--supported", "Colors"]
    assert words[8:] == [
        "--steps", "4", "--lr", "0.01", "--batch-size", "8", "--warmup", "0", "--select", "best-mean", "--alpha", "0,0.5,1",
    ]  # fmt: skip
    assert commands[1] == "wisepatch export patched DIR"


def test_zeroshot_model_and_fine_tuned_end_stand_beside_the_patched_model(swept, tmp_path):
    store, sweep = swept
    card = card_of(store, sweep.chosen, tmp_path / "mine")
    tested = [row for row in sweep.rows if row["split"] == "test" and row["task"] == "Colors"]
    zeroshot, finetuned = (next(row for row in tested if row["alpha"] == alpha) for alpha in (0, 1))
    shown = [
        f"{100 * row['value']:.1f} ({100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f})"
        for row in (zeroshot, finetuned)
    ]
    (line,) = (line for line in card.splitlines() if line.startswith("| Colors | test | top1 |"))
    assert line.endswith(f"** | {shown[0]} | {shown[1]} | {tested[0]['n']} |")


def test_card_of_a_merge_tells_how_its_parameters_were_chosen(run_store, tmp_path):
    by_hand = wp.merge(run_store, tmp_path, "finetuned", method="task-arithmetic", measure=False, run_name="one").chosen
    card = card_of(run_store, by_hand, tmp_path / "one")
    assert '- **mix**: task-arithmetic {"alpha": 0.4}\n- **parameters**: given by hand\n' in card
    chosen = run_store.save(
        None, kind="merged", name="two", model=by_hand.model, recipe=by_hand.recipe,
        config=by_hand.config | {"select": "best-mean", "select_on": "val"},
    )  # fmt: skip
    wp.evaluate(["zeroshot", "finetuned", chosen], "Colors", run_store, tmp_path, metrics="top1")
    card = card_of(run_store, chosen, tmp_path / "two")
    assert "- **parameters**: chosen by the rule best-mean on validation data\n" in card
    assert "| this model | zero-shot | fine-tuned | n |" in card
    assert re.search(r"\| Colors \| test \| top1 \| \*\*.+\*\* \| \d.+ \| \d.+ \| 60 \|", card)


def test_card_of_a_merge_has_the_picture_of_what_it_was_chosen_from(run_store, tmp_path):
    for name, rule in (("one", "best-mean"), ("two", None)):
        wp.merge(
            run_store, tmp_path, ["zeroshot", "finetuned"], params=["alpha=0.5,0.9" if rule else "alpha=0.5"], tasks="Colors",
            rule=rule, metrics="top1", run_name=name,
        )  # fmt: skip
        card = card_of(run_store, name, tmp_path / name)
        chosen = "chosen by the rule best-mean on validation data among 2 merges" if rule else "given by hand"
        assert f"- **parameters**: {chosen}\n" in card
        assert "![Accuracy on what was patched over that on the supported tasks](sweep.png)" in card
        with Image.open(tmp_path / name / "sweep.png") as picture:
            assert picture.width > 500


def test_commands_of_a_card_are_understood(swept, tmp_path):
    import typer.main

    from wisepatch.cli.app import app

    group = typer.main.get_command(app)
    store, sweep = swept
    ones = [sweep.chosen, store.find("finetuned"), store.find("zeroshot"), recipes(store, [0.25])[0]]
    for number, one in enumerate(ones):
        card = card_of(store, one, tmp_path / str(number))
        for line in re.search(r"```console\n(.*?)```", card, re.DOTALL).group(1).splitlines():
            words = shlex.split(line)[1:]
            group.get_command(None, words[0]).make_context(words[0], words[1:])


def test_card_of_what_was_not_measured_or_chosen_says_so(run_store, tmp_path):
    (mix,) = recipes(run_store, [0.25])
    card = card_of(run_store, mix, tmp_path / "mix")
    assert "Nothing was measured of these weights." in card
    assert "- **alpha**: 0.25, given by hand" in card
    assert not (tmp_path / "mix" / "sweep.png").exists()
    assert "sweep.png" not in card
    run_store.remove([run_store.find("finetuned")], with_recipes=True)
    card = card_of(run_store, "zeroshot", tmp_path / "zeroshot")
    assert "alpha" not in card
    assert "wisepatch zeroshot --model demo --task TASK" in card


def test_measurements_of_another_command_are_in_the_table(run_store, tmp_path):
    wp.evaluate("finetuned", "Colors@val", run_store, tmp_path, metrics="top1")
    card = card_of(run_store, "finetuned", tmp_path / "model")
    assert re.search(r"\| Colors \| val \| top1 \| \*\*\d+\.\d \(.*\)\*\* \| 60 \|", card), card


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("/home/me/photos", "photos"), ("typo:/home/me/photos", "typo:photos"), ("/home/me/a.csv?group=x", "a.csv?group=x"),
        ("corrupt:/home/me/photos:fog:3", "corrupt:photos:fog:3"), ("local-dir:/home/me/m", "local-dir:m"),
        ("hf-hub:me/m", "hf-hub:me/m"), ("ViT-B/32", "ViT-B/32"), ("MNIST", "MNIST"),
    ],
)  # fmt: skip
def test_folders_of_the_machine_are_not_published(word, told):
    assert public(word) == told


def test_base_model_is_named_as_the_hub_names_it(tmp_path):
    from wisepatch.models.clip import hub_name

    assert hub_name(wp.ModelConfig("ViT-B-32", "openai")) == "timm/vit_base_patch32_clip_224.openai"
    assert hub_name(wp.ModelConfig("hf-hub:me/mine", "")) == "me/mine"
    assert hub_name(wp.ModelConfig("demo", "")) == ""
    assert hub_name(wp.ModelConfig("ViT-B-32", "weights.pt")) == ""

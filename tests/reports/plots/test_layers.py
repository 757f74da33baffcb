"""How far blocks moved: the table, the picture, and checkpoints that have no two ends."""

import pytest
import torch
from safetensors.torch import load_file

from tests.reports.plots.pictures import drawn, movements, texts
from wisepatch import draw_layers, layer_table, load_layers
from wisepatch.errors import UsageError
from wisepatch.store.checkpoints import Recipe


def test_blocks_that_moved_have_a_point_and_the_others_are_counted():
    figure = drawn("layers")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["visual.conv1", *(f"visual.transformer.resblocks.{n}" for n in range(6)), "visual.proj"]
    first = [figure.axes[0].lines[0].get_xdata()[place] for place in (0, 7)]
    assert first == [pytest.approx(0.01 / 2), pytest.approx((0.01 + 0.004 * 49) / 2)]
    said = " ".join(text.replace("\n", " ") for text, _ in texts(figure))
    assert "1 block did not move and is left out" in said
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["demo/Shapes/finetuned", "gentle"]


def test_weights_that_did_not_move_at_all_are_drawn_too():
    assert draw_layers(layer_table({"still": movements(0.0)})).axes


def test_a_checkpoint_is_compared_with_what_it_was_trained_from(run_store):
    table = load_layers(run_store, ["finetuned"]).set_index("layer")
    ends = [load_file(run_store.weights_path(run_store.find(word))) for word in ("zeroshot", "finetuned")]
    names = [name for name in ends[0] if name.startswith("visual.trunk.blocks.2.")]
    x, y = (
        torch.cat([end[name].flatten().double() for name in names if end[name].is_floating_point()]) for end in ends
    )
    row = table.loc["visual.trunk.blocks.2"]
    assert row["distance"] == pytest.approx((y - x).norm().item(), rel=1e-6)
    assert row["cosine"] == pytest.approx((x @ y / x.norm() / y.norm()).item(), rel=1e-9)
    assert table.loc["token_embedding", "distance"] == 0  # the text tower is frozen


def test_a_mix_has_no_two_ends(run_store, cli):
    cli("interpolate", "--alpha", "0,0.5", "--eval", "Colors", "--select", "best-mean")
    with pytest.raises(UsageError, match="is a mix") as caught:
        load_layers(run_store, ["patched"])
    assert run_store.find("finetuned").id in caught.value.hint
    with pytest.raises(UsageError, match="was trained from no checkpoint"):
        load_layers(run_store, ["zeroshot"])


def test_a_training_that_began_with_a_mix_is_compared_with_that(run_store):
    start, end = (run_store.find(word) for word in ("zeroshot", "finetuned"))
    mix = run_store.save(
        None, kind="patched", name="half", model=end.model, recipe=Recipe("linear", (start.id, end.id), {"alpha": 0.5})
    )
    further = run_store.save(
        load_file(run_store.weights_path(end)), kind="finetuned", name="further", model=end.model, trained_from=[mix.id]
    )
    whole, half = (load_layers(run_store, [each]).iloc[0]["distance"] for each in (end, further))
    assert half == pytest.approx(whole / 2, rel=1e-5)
    assert not list(run_store.checkpoints.glob(".*"))

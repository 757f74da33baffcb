"""``patch --objective A,B``: one table and one picture of several objectives, and what is refused before anything is trained."""

import json

import pytest
from PIL import Image

from wisepatch.cli import options as o
from wisepatch.cli.objectives import objective_names, of_one, unequal_budgets
from wisepatch.datasets import demo
from wisepatch.errors import UnknownNameError, UsageError
from wisepatch.train_config import TrainConfig

TRAINING = ("--model", "demo", "--steps", "2", "--batch-size", "4", "--lr", "1e-2", "--warmup", "0")


def test_two_objectives_are_shown_in_one_table_and_drawn_in_one_picture(cli, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 20, "val": 20, "test": 20})
    words = ("patch", "--task", shapes, "--supported", "Colors", "--alpha", "0,1", *TRAINING)
    words = (
        *words,
        "--objective",
        "cross-entropy,lipsum",
        "--objective-param",
        "texts=3",
        "--select",
        "max-drop=0.5@95",
        "--seeds",
        "0,1",
    )
    told = cli(*words, "--output", "both.png")
    assert told.exit_code == 0, told.output
    rows = [line for line in told.stdout.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == ["cross-entropy", "lipsum"]
    assert "than cross-entropy, at the alphas that were chosen, " in told.stdout
    assert all(row.count("±") == 4 for row in rows)  # chosen and at alpha 1: patching and supported
    assert "(paired by image over 2 seeds, in the same direction in each, p after Holm)" in told.stdout
    assert (
        "note: max-drop=0.5@95 holds of each of the 4 choices by itself; for one that is picked among them"
        in told.stdout
    )
    with Image.open("both.png") as picture:
        assert picture.width > 500
    records = [json.loads(line) for line in cli(*words, "--json").stdout.splitlines()]
    first, second = (each for each in records if each["type"] == "objective")
    assert (first["objective"], first["against_first"]) == ("cross-entropy", None)
    assert second["against_first"]["value"] == pytest.approx(second["patching"] - first["patching"])
    results = [each for each in records if each["type"] == "result"]
    assert {each["run_name"] for each in results} == {"cross-entropy", "lipsum"}
    assert {each["training"] for each in results} == {"paint", "paint+lipsum"}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--objective", "cross-entropy,cross-entropy"), "--objective cross-entropy,cross-entropy names one twice"),
        (("--objective", ""), "--objective '' names none"),
        (("--objective", ","), "--objective ',' names none"),
        (("--objective", "lipsum,car-ft", "--strategy", "parallel"), "--strategy is about several tasks"),
        (("--objective", "lipsum,car-ft", "--distill-on", "Colors"), "lipsum: lipsum takes no unlabelled images"),
        (("--objective", "cross-entropy,lipsun"), "unknown objective 'lipsun'"),
        (("--objective", "lipsum,car-ft", "--method", "fisher"), "objectives are compared after linear mixes"),
        (("--objective", "lipsum,car-ft", "--plan"), "--plan measures one objective"),
        (
            ("--objective", "lipsum,car-ft", "--also", "Textures"),
            "several objectives are compared on one task, and --also",
        ),
        (
            ("--objective", "lipsum,car-ft", "--task", "Textures"),
            "several objectives are compared on one task, and --also",
        ),
        (("--alpha", "auto", "--plan"), "--alpha auto finds the alphas as it goes, and --plan counts them"),
        (("--seeds", "0,1", "--also", "Textures"), "--seeds patches one task, and measures nothing besides"),
        (("--objective", "lipsum,car-ft", "--alpha", "auto"), "--alpha auto leaves other alphas for each training"),
        (("--objective", "lipsum,car-ft", "--objective-param", "beta=1"), "the objective lipsum has no setting 'beta'"),
        (
            ("--objective", "lipsum,lp-ft", "--head", "frozen"),
            "lp-ft: lp-ft trains the head, and the head is to be frozen",
        ),
        (("--objective", "lipsum", "--distill-on", "nowhere"), "lipsum takes no unlabelled images"),
        (("--objective", "distill", "--distill-on", "nowhere"), "unknown task 'nowhere'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(words, reason, cli, shapes, tmp_path):
    told = cli("patch", "--task", shapes, "--supported", "Colors", *TRAINING, *words)
    assert told.exit_code in (1, 2)
    assert reason in told.stderr
    assert not (tmp_path / "wisepatch-store").exists()


def test_papers_defaults_that_differ_are_said_and_settings_that_are_given_are_for_all():
    plain, probed = (TrainConfig.with_defaults("Digits", head=head) for head in ("frozen", "trained"))
    assert unequal_budgets({"cross-entropy": plain, "lp-ft": probed}) == (
        "note: not all are trained for as long and as fast (cross-entropy: 2,000 steps of 128 images at 1e-05; "
        "lp-ft: 10 epochs of 512 images at 3e-05); --steps, --batch-size and --lr are for all"
    )
    given = {"steps": 5, "batch_size": 8, "lr": 1e-3}
    ways = {head: TrainConfig.with_defaults("Digits", head=head, **given) for head in ("frozen", "trained")}
    assert not unequal_budgets(ways)


def test_a_setting_goes_to_the_objectives_that_have_it():
    names = objective_names("cross-entropy, lipsum,car-ft")
    assert names == ["cross-entropy", "lipsum", "car-ft"]
    train = o.TrainOptions(objective_param=["weight=0.5", "lipsum.texts=3", "length=4"])
    given = {name: of_one(train, name, names)["objective_param"] for name in names}
    assert given == {
        "cross-entropy": ["lipsum.texts=3"],
        "lipsum": ["weight=0.5", "lipsum.texts=3", "length=4"],
        "car-ft": ["weight=0.5", "lipsum.texts=3"],
    }
    train = o.TrainOptions(objective_param=None, distill_on="photos")
    names = ["cross-entropy", "distill"]
    assert [of_one(train, name, names)["distill_on"] for name in names] == [None, "photos"]
    train = o.TrainOptions(objective_param=None, wd=0.3)
    assert [of_one(train, name, ["cross-entropy", "l2-sp"])["wd"] for name in ("cross-entropy", "l2-sp")] == [0.3, None]
    assert of_one(train, "l2-sp", ["l2-sp"])["wd"] == 0.3  # to be refused
    with pytest.raises(UsageError, match="names one twice"):
        objective_names("lipsum,lipsum")
    with pytest.raises(UnknownNameError):
        objective_names("nothing")

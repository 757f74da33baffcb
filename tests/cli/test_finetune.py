"""``wisepatch finetune``."""

import json

from tests.samples import fails, write_mnist


def test_default_model_says_what_could_not_be_fetched_and_how_to_give_weights(cli, shapes, monkeypatch):
    import open_clip.factory

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", refuse)
    result = cli("finetune", "--task", shapes)
    fails(result, 1, "openai weights of ViT-B-32: could not be fetched or read", "--pretrained FILE")
    assert "no route to host" in result.stderr


def test_finetune_and_interpolate_run_on_mnist_files(cli, data):
    write_mnist(data)
    done = cli("finetune", "--model", "demo", "--task", "MNIST", "--data", data, "--steps", "3", "--batch-size", "8")
    assert done.exit_code == 0, done.output
    assert "demo/MNIST/finetuned" in done.stdout
    swept = cli("interpolate", "--alpha", "0:1:0.1", "--data", data)
    assert swept.exit_code == 0, swept.output
    assert [line.split("│")[1].strip() for line in swept.stdout.splitlines() if line.startswith("│")] == [
        "0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1",
    ]  # fmt: skip
    drawn = cli("plot", "--output", "plot.svg")
    assert drawn.exit_code == 0, drawn.output
    assert "drew 11 points of 1 run to" in drawn.stdout


def test_a_name_is_kept_with_the_training_and_used_by_tables_pictures_and_sweeps(cli, shapes):
    words = ("finetune", "--model", "demo", "--task", shapes, "--steps", "2", "--batch-size", "4")
    assert cli(*words, "--name", "first try").exit_code == 0
    assert cli("store", "list").stdout.count("first try") == 1
    assert "first try" in cli("store", "show", "finetuned").stdout
    drawn = cli("plot", "--kind", "training", "--run", "first try", "--json").stdout.splitlines()
    assert {json.loads(line)["training"] for line in drawn} == {"first try"}
    assert cli("interpolate", "--alpha", "0,0.5,1").exit_code == 0
    assert "drew 3 points of 1 run" in cli("plot", "--run", "first try").stdout
    renamed = cli(*words, "--name", "second try")  # the same training: named anew, not repeated
    assert "finished already" in renamed.stderr
    assert "second try" in cli("store", "show", "finetuned").stdout
    again = cli(*words)  # keeps its name
    assert again.exit_code == 0
    fails(cli("plot", "--kind", "training", "--run", "first try"), 1, "no training 'first try'", "second try")


def test_several_objectives_are_for_patch(cli, shapes, tmp_path):
    told = cli("finetune", "--model", "demo", "--task", shapes, "--objective", "cross-entropy,lipsum")
    fails(told, 2, "finetune trains with one objective, and --objective cross-entropy,lipsum names several", "patch")
    assert not (tmp_path / "wisepatch-store").exists()

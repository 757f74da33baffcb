"""``wisepatch finetune``."""

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

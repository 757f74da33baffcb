"""What several test files share: small data in real formats, a store with a finished run, the command line."""

import os
import shutil
import signal
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from typer.testing import CliRunner

from tests.samples import draw_folder


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=0, help="kills in each test of crashes (a few without)")


def pytest_configure(config):
    settings.register_profile("repeatable", derandomize=True, deadline=None)  # a red run is red again
    # For fuzzing: pytest -k fuzzed --hypothesis-profile=thorough
    settings.register_profile(
        "thorough", max_examples=10_000, deadline=None, database=None, suppress_health_check=HealthCheck
    )
    settings.load_profile(config.getoption("--hypothesis-profile", None) or "repeatable")
    os.environ["WISEPATCH_PLUGINS"] = "0"  # what else is installed must not change what is tested
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in ("WISEPATCH_STORE", "WISEPATCH_DATA", "WISEPATCH_DEBUG"):
        os.environ.pop(name, None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a job that a shell starts with &
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def shapes(tmp_path):
    return draw_folder(tmp_path / "shapes")


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Run the program in an empty folder: ``cli("store", "list")`` gives the result of a CliRunner."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def run(*words):
        from wisepatch.cli.app import app

        result = CliRunner().invoke(app, [str(word) for word in words], prog_name="wisepatch")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def papers(tmp_path_factory):
    """Tiny checkpoints that the papers' own code wrote, and the logits that it gives."""
    root = tmp_path_factory.mktemp("papers")
    with tarfile.open(Path(__file__).parent / "data" / "papers-checkpoints.tar.xz") as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A store with one short PAINT run of the embedded model on a folder of shapes; copy it before writing."""
    from wisepatch import ModelConfig, Store, TrainConfig, finetune

    root = tmp_path_factory.mktemp("finished")
    draw_folder(root / "shapes")
    config = TrainConfig.with_defaults(
        str(root / "shapes"), supported=("Colors",), steps=4, batch_size=8, lr=1e-2, warmup=0
    )
    done = finetune(config, ModelConfig("demo", ""), Store(root / "store"), root)
    return root, done


@pytest.fixture
def run_store(finished, tmp_path):
    """A copy of the finished store."""
    from wisepatch import Store

    shutil.copytree(finished[0] / "store", tmp_path / "wisepatch-store")
    return Store(tmp_path / "wisepatch-store")

"""What several test files share: small data in real formats, a store with a finished run, the command line."""

import gc
import os
import shutil
import signal
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from typer.testing import CliRunner

from tests.samples import draw_folder

# Of terminals and CI (Typer and Rich follow them), of the Hub, and of launchers: they must not change what is tested.
SETTINGS_FROM_OUTSIDE = {
    "COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TTY_INTERACTIVE",
    "TERMINAL_WIDTH", "HF_ENDPOINT", "HF_TOKEN", "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE",
}  # fmt: skip


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=0, help="kills in each test of crashes (a few without)")


@pytest.hookimpl(trylast=True)  # pytest's own output follows the terminal
def pytest_configure(config):
    settings.register_profile("repeatable", derandomize=True, deadline=None)  # a red run is red again
    # For fuzzing: pytest -k fuzzed --hypothesis-profile=thorough
    settings.register_profile(
        "thorough", max_examples=10_000, deadline=None, database=None, suppress_health_check=HealthCheck
    )
    settings.load_profile(config.getoption("--hypothesis-profile", None) or "repeatable")
    for name in [name for name in os.environ if name.startswith("WISEPATCH_") or name in SETTINGS_FROM_OUTSIDE]:
        del os.environ[name]
    os.environ["WISEPATCH_PLUGINS"] = "0"  # what else is installed must not change what is tested
    os.environ["HF_HUB_OFFLINE"] = "1"
    # The first is ignored in a job that a shell starts with &, the second below nohup.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_finish():
    """Take what is imported, which stays to the end, out of the rounds of the garbage collector, which would take 0.3 s each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_lease_outlives_its_test():
    """Close the file that a process keeps open for every store it uses: some systems allow 256 of them."""
    yield
    if sharing := sys.modules.get("wisepatch.store.sharing"):
        sharing._end_leases()


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

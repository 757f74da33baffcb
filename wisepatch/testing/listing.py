"""List what a plugin registers in a fresh process, and see what that imports, reads and connects to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from wisepatch import plugins
from wisepatch.errors import PluginError
from wisepatch.hookspecs import GROUP
from wisepatch.testing.findings import require

HEAVY = (
    "accelerate", "cv2", "datasets", "jax", "matplotlib", "numpy", "open_clip", "pandas", "pyarrow", "scipy", "skimage",
    "sklearn", "tensorflow", "timm", "torch", "torchvision", "transformers",
)  # fmt: skip
LISTING_SECONDS = 120
LISTING = "from wisepatch.testing.listing import report_listing; report_listing()"


def check_listing(source: EntryPoint, folder: Path | None) -> None:
    """Load the plugin in a fresh process: no heavy library, no file of the data folder, no network."""
    watched = [Path("~/data").expanduser(), *([] if folder is None else [folder])]
    asked = json.dumps([source.name, source.value, [str(each.absolute()) for each in watched]])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", LISTING, asked],
            env=environment, capture_output=True, text=True, check=False, timeout=LISTING_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise PluginError(f"listing takes more than {LISTING_SECONDS} seconds") from None
    if done.returncode:
        raise PluginError(f"it fails in a fresh process: {done.stderr.strip().splitlines()[-1]}")
    seen: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    wrong = [f"listing {verb} {', '.join(names)}" for verb, names in seen.items() if names]
    require(not wrong, f"{'; '.join(wrong)}; do it when a split is opened")


def report_listing() -> None:
    """Print as JSON what loading a plugin imports and touches; runs in a process of its own."""
    name, value, folders = json.loads(sys.argv[1])
    before = set(sys.modules)
    seen: dict[str, list[str]] = {"imports": [], "reads": [], "connects to": []}

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes, os.PathLike)):
            path = Path(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100 -- looks at no disk
            code = path.suffix in (".py", ".pyc") or str(path) in sys.path  # importing is no reading of data
            if not code and any(path.is_relative_to(folder) for folder in folders):
                seen["reads"].append(str(path))
        elif event in ("socket.connect", "socket.getaddrinfo"):
            seen["connects to"].append(str(arguments[0] if event == "socket.getaddrinfo" else arguments[1]))

    sys.addaudithook(audit)
    problem = plugins.load(EntryPoint(name, value, GROUP)).problem
    if problem:
        sys.exit(problem)
    seen["imports"] = [each for each in HEAVY if each in sys.modules and each not in before]
    sys.stdout.write("\n" + json.dumps(seen))

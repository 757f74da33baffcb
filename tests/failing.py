"""A command of several processes of which one fails, as HOW says: ``python -m tests.failing`` stands in for ``wisepatch eval``."""

import os
import signal
import sys
import time
from types import SimpleNamespace

from wisepatch import process_group
from wisepatch.cli.app import app
from wisepatch.cli.options import Common, Machine, with_settings
from wisepatch.errors import DataError
from wisepatch.ranks import rank

HOW = os.environ.get("HOW", "")


@with_settings
def command(machine: Machine, common: Common) -> None:
    """Fail."""
    if HOW == "everywhere" or (rank() == 1 and HOW.startswith("error")):
        raise DataError("image 7 cannot be read", "replace it")
    if rank() == 1 and HOW == "bug":
        raise ZeroDivisionError
    if rank() == 1 and HOW == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if HOW in ("error while computing", "long"):
        common.output.result("at work")
        time.sleep(300)
    process_group.from_all(None)
    common.output.result("done")


if __name__ == "__main__":
    sys.modules["wisepatch.cli.evaluate"] = SimpleNamespace(command=command)
    app(["eval", *(["--device=cuda:9"] if HOW == "no device" and rank() == 1 else [])], prog_name="wisepatch")

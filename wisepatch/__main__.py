"""The program: ``wisepatch``, and ``python -m wisepatch`` for ``accelerate launch -m wisepatch`` and ``torchrun -m wisepatch``."""

import gc
import sys


def main() -> None:
    """Run the command line."""
    gc.disable()  # until a command runs: what is imported is no garbage, and looking for some takes a tenth of the start
    from wisepatch.cli.app import app

    gc.freeze()  # nor is it looked through later
    try:
        app(prog_name="wisepatch")
    finally:
        # A listing leaves nothing that has to be ended in order, and Python's last look for it takes a fifth of the time.
        if "torch" not in sys.modules:
            gc.freeze()


if __name__ == "__main__":
    main()

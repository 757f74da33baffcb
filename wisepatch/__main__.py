"""The program: ``wisepatch``, and ``python -m wisepatch`` for ``accelerate launch -m wisepatch`` and ``torchrun -m wisepatch``."""

import os
import sys

from wisepatch.errors import interruption


def main() -> None:
    """Run the command line; of several processes the main one alone has a stdout."""
    try:
        from wisepatch.cli.app import app
        from wisepatch.ranks import is_main

        if not is_main():
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 -- as long as the process lives

        app(prog_name="wisepatch")
    except (KeyboardInterrupt, Exception) as error:
        if interruption(error) is None:
            raise
        sys.stderr.write("interrupted: nothing was under way\n")  # before a command began
        sys.exit(130)


if __name__ == "__main__":
    main()

"""The program: ``wisepatch``, and ``python -m wisepatch`` for ``accelerate launch -m wisepatch`` and ``torchrun -m wisepatch``."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from wisepatch.cli.app import app

        app(prog_name="wisepatch")
    except KeyboardInterrupt:  # before a command began
        sys.stderr.write("interrupted: nothing was under way\n")
        sys.exit(130)


if __name__ == "__main__":
    main()

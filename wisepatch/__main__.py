"""The program: ``wisepatch``, and ``python -m wisepatch`` for ``accelerate launch -m wisepatch`` and ``torchrun -m wisepatch``."""


def main() -> None:
    """Run the command line."""
    from wisepatch.cli.app import app

    app(prog_name="wisepatch")


if __name__ == "__main__":
    main()

"""``python -m wisepatch``, for ``accelerate launch -m wisepatch`` and ``torchrun -m wisepatch``."""

from wisepatch.cli.app import app

if __name__ == "__main__":
    app(prog_name="wisepatch")

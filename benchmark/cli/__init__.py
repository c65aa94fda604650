"""The command line: thin commands over the library. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys

from realmbench.errors import RealmbenchError

# Importing them registers their commands.
from . import measuring, reading, reproducing, running, stages, tuning  # noqa: F401
from .application import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; bad input is one line and exit code 2."""
    try:
        app()
    except RealmbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

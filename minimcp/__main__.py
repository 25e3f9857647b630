"""The command line; see `cli.main`."""

from __future__ import annotations

import sys

from .cli.loading import load
from .cli.main import main

__all__ = ["load", "main"]

if __name__ == "__main__":
    sys.exit(main())

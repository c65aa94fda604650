"""realmbench: the open benchmark of decoders that turn local field potentials into movement.

Importing the package loads neither torch nor scikit-learn; the names below are resolved on first use.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

__version__ = version("realmbench")

_PUBLIC = {
    "DATASETS": "realmbench.dataset",
    "DECODERS": "realmbench.decoder",
    "PROTOCOLS": "realmbench.protocol",
    "Dataset": "realmbench.dataset",
    "Decoder": "realmbench.decoder",
    "Protocol": "realmbench.protocol",
    "Recording": "realmbench.recording",
    "RunRecord": "realmbench.records",
    "open_dataset": "realmbench.dataset",
}

__all__ = ["__version__", *sorted(_PUBLIC)]  # resolved by __getattr__


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

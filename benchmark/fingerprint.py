"""Fingerprints of code: caches and finished runs are reused only while the code that made them stands."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from .seeds import stable_hash

# The harness's own sources that decide whether an old result still holds.
HARNESS = (
    "recording",
    "seeds",
    "evaluation",
    "single_run",
    "metrics",
    "preparation",
    "manifest",
    "protocol",
    "protocols",
    "session",
    "front_end",
    "channels",
)


def code_of(modules: Sequence[str]) -> str:
    """Hash the sources of modules and of the harness that runs them."""
    return stable_hash([fingerprint(module) for module in (*modules, *(f"realmbench.{name}" for name in HARNESS))])


@functools.cache
def fingerprint(module: str) -> str:
    """Hash the source of a module by its name; of a package, all its Python files."""
    loaded = sys.modules.get(module)
    origin = getattr(loaded, "__file__", None)
    if origin is None:
        spec = importlib.util.find_spec(module)
        origin = spec.origin if spec else None
    if origin is None:
        return "built-in"
    path = Path(origin)
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]

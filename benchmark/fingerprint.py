"""Fingerprints of code: caches and finished runs are reused only while the code that made them stands."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
from pathlib import Path


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

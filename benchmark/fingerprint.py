"""Fingerprints of code: caches and finished runs are reused only while the code that made them stands."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import io
import sys
import sysconfig
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

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
    """Hash what modules, and the harness that runs them, do: comments and docstrings do nothing."""
    return stable_hash([_meaning(module) for module in (*modules, *(f"realmbench.{name}" for name in HARNESS))])


def is_ours(module: str) -> bool:
    """Tell whether a module belongs to this package."""
    return module.partition(".")[0] == "realmbench"


def helpers_of(cls: type) -> list[str]:
    """Return the modules that somebody else's class leans on: those of its bases, and what they import from files.

    None for a class of this package, which names them itself; nor do installed packages count.
    """
    if is_ours(cls.__module__):
        return []
    installed = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found: list[str] = []
    waiting = [base.__module__ for base in cls.__mro__ if not is_ours(base.__module__)]
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if name in found or is_ours(name) or file is None or any(file.startswith(folder) for folder in installed):
            continue
        found.append(name)
        for value in vars(module).values():
            imported = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(imported, str):
                waiting.append(imported)
    return sorted(set(found) - {cls.__module__})


@functools.cache
def fingerprint(module: str) -> str:
    """Hash every byte of a module, by its name; of a package, of all its Python files. For what makes data."""
    return _digest(module, lambda source: source)


@functools.cache
def _meaning(module: str) -> str:
    return _digest(module, without_words)


def _digest(module: str, reduced: Callable[[str], str]) -> str:
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
        source = file.suffix == ".py"  # and no compiled module
        digest.update(reduced(file.read_text(encoding="utf-8-sig")).encode() if source else file.read_bytes())
    return digest.hexdigest()[:16]


def without_words(source: str) -> str:
    """Return Python source without its comments, empty lines, and docstrings that stand on lines of their own."""
    lines = source.removesuffix("\n").split("\n")  # as tokenize and ast count them: a form feed ends no line
    dropped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                start, end = first.lineno, first.end_lineno or first.lineno
                before, after = (line.encode() for line in (lines[start - 1], lines[end - 1]))  # columns count bytes
                if not before[: first.col_offset].strip() and not after[first.end_col_offset :].strip():
                    dropped.update(range(start, end + 1))
    # Tokens tell an empty line from one inside a string, and a comment from a string that holds a #.
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT:
            lines[row - 1] = lines[row - 1][:column].rstrip()
        if token.type in (tokenize.COMMENT, tokenize.NL) and not lines[row - 1].strip():
            dropped.add(row)
    return "\n".join(line for row, line in enumerate(lines, 1) if row not in dropped)

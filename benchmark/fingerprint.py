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
    """Return the modules that somebody else's class leans on: of its bases, and files that these or those import.

    None for a class of this package, which names them itself. Installed packages do not count, but its own.
    """
    if is_ours(cls.__module__):
        return []
    own = cls.__module__.partition(".")[0]
    found: set[str] = set()
    # Of this package's the base alone: every decoder stands on the contract, which is no method.
    waiting = [base.__module__ for base in cls.__mro__ if base.__module__ != "realmbench.decoder"]
    while waiting:
        name = waiting.pop()
        file = None if name in found else _file(name, own)
        if file is not None:
            found.add(name)
            waiting += [] if is_ours(name) else _imported(file, name)
    return sorted(found - {cls.__module__})


def _file(module: str, own: str) -> Path | None:
    """Return the Python file of a module; None of the standard library's, and of packages installed but ``own``."""
    loaded = sys.modules.get(module)
    origin = getattr(loaded, "__file__", None)
    top = module.partition(".")[0]
    if loaded is None and (top == module or _file(top, own) is not None):
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):  # a name that is imported from a module and is none itself
            return None
        origin = spec.origin if spec else None
    if origin is None or not origin.endswith(".py"):
        return None
    path = Path(origin)
    installed = {"site-packages", "dist-packages"} & set(path.parts) or path.is_relative_to(
        sysconfig.get_path("stdlib")
    )
    return None if installed and top != own and not is_ours(module) else path


def _imported(file: Path, module: str) -> list[str]:
    """Return the names of what a file imports anywhere; some are no modules."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8-sig"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                if not package:
                    continue
                base = importlib.util.resolve_name("." * node.level + base, package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [name for name in names if not is_ours(name)]


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

"""One generic registry for datasets, decoders and protocols.

A name resolves, in this order, to

1. an object registered in this process with the decorator,
2. a lazy entry of a built-in table: ``"wiener": Lazy("package.module:Class", "one line")``,
3. an entry point of an installed package (groups ``realmbench.datasets``, ``.decoders``, ``.protocols``),
4. ``path/to/file.py:Class``, which needs no registration at all.

Nothing is imported before it is asked for, so that listing names stays fast.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from .errors import RealmbenchError, unknown_name
from .seeds import stable_hash

T = TypeVar("T")


@dataclass(frozen=True)
class Lazy:
    """A class that is imported on first use.

    Attributes
    ----------
    target : ``"package.module:Class"``.
    summary : one line for listings, so that they need no import.
    """

    target: str
    summary: str


class Registry(Generic[T]):
    """Names of one kind of thing.

    Parameters
    ----------
    kind : what the things are, for messages ("decoder").
    group : entry-point group that other packages may fill.
    tables : built-in tables as ``"package.module:NAME"``, each a ``dict[str, Lazy]``, imported on first use.
    base : ``"package.module:Class"`` that every registered class must derive from.
    """

    def __init__(self, kind: str, group: str, tables: tuple[str, ...], base: str) -> None:
        self.kind = kind
        self.group = group
        self._tables = tables
        self._base = base
        self._registered: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: ``@DECODERS.register("my-decoder")``. A taken name is an error."""

        def decorate(cls: type[T]) -> type[T]:
            if name in self._lazy() or self._registered.get(name, cls) is not cls:
                raise RealmbenchError(f"{self.kind} {name!r} is registered already; choose another name")
            self._registered[name] = self._checked(name, cls)
            return cls

        return decorate

    def names(self) -> list[str]:
        """Return every known name, sorted."""
        return sorted({*self._registered, *self._lazy(), *self._plugins()})

    def summary(self, name: str) -> str:
        """Return one line about a name, importing only what is not in a built-in table."""
        lazy = self._lazy().get(name)
        if lazy is not None and name not in self._registered:
            return lazy.summary
        return (self.get(name).__doc__ or "").strip().split("\n")[0]

    def get(self, name: str) -> type[T]:
        """Resolve a name to its class.

        Raises
        ------
        UnknownNameError : no such name; the message lists the nearest ones.
        RealmbenchError : the target cannot be imported or is not of the right kind.
        """
        if name in self._registered:
            return self._registered[name]
        if ".py:" in name or name.endswith(".py"):
            return self._checked(name, self._from_file(name))
        if name in (lazy := self._lazy()):
            return self._checked(name, import_object(lazy[name].target))
        if name in (plugins := self._plugins()):
            return self._checked(name, self._load_plugin(plugins[name]))
        raise unknown_name(self.kind, name, self.names())

    def __contains__(self, name: str) -> bool:
        return name in self._registered or name in self._lazy() or name in self._plugins()

    def _lazy(self) -> dict[str, Lazy]:
        merged: dict[str, Lazy] = {}
        for table in self._tables:
            merged |= import_object(table)
        return merged

    def _plugins(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def _load_plugin(self, point: EntryPoint) -> type[T]:
        try:
            return point.load()
        except (Exception, SystemExit) as error:
            package = point.dist.name if point.dist else "an installed package"
            raise RealmbenchError(
                f"{self.kind} {point.name!r} of {package} cannot be loaded ({point.value}): {error}"
            ) from error

    def _from_file(self, name: str) -> type[T]:
        path_text, _, class_name = name.rpartition(":") if ".py:" in name else (name, "", "")
        path = Path(path_text).expanduser()
        if not path.is_file():
            raise RealmbenchError(f"{self.kind} file {path} does not exist (asked for as {name!r})")
        if not class_name:
            raise RealmbenchError(f"name the class in {path}, as in {path}:MyClass")
        # A module name made from the path keeps two files of the same name apart.
        module_name = f"realmbench_file_{path.stem}_{stable_hash(str(path.resolve()), 8)}"
        if module_name not in sys.modules:
            spec = importlib.util.spec_from_file_location(module_name, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            try:
                with redirect_stdout(sys.stderr):  # standard output is for answers
                    spec.loader.exec_module(module)
            except (Exception, SystemExit) as error:  # a script that was meant to be started may exit at its end
                del sys.modules[module_name]
                beside = isinstance(error, ModuleNotFoundError) and (path.parent / f"{error.name}.py").is_file()
                hint = f"; Python finds the files beside it with PYTHONPATH={path.parent}" if beside else ""
                raise RealmbenchError(f"{path} cannot be imported: {type(error).__name__}: {error}{hint}") from error
        module = sys.modules[module_name]
        if not hasattr(module, class_name):
            classes = [key for key, value in vars(module).items() if isinstance(value, type)]
            raise unknown_name(f"class in {path}", class_name, classes)
        return getattr(module, class_name)

    def _checked(self, name: str, cls: type[T]) -> type[T]:
        base = import_object(self._base)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise RealmbenchError(f"{self.kind} {name!r} must be a class derived from {base.__name__}, not {cls!r}")
        if missing := sorted(getattr(cls, "__abstractmethods__", ())):
            raise RealmbenchError(f"{self.kind} {name!r} does not write {', '.join(missing)}; see CONTRIBUTING.md")
        return cls


def import_object(target: str):  # type: ignore[no-untyped-def]  # whatever the target names
    """Import ``"package.module:NAME"``."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)

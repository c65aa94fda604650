"""Errors that a user can mend: each says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RealmbenchError(Exception):
    """Bad input. The command line prints its one line and exits with code 2."""


class UnknownNameError(RealmbenchError):
    """A name that is not among the known ones."""


class RecordingError(RealmbenchError):
    """A recording that cannot be used: a missing or damaged file, unusable channels, clocks that do not overlap."""


class ProtocolError(RealmbenchError):
    """A combination that the protocol refuses, or a recording that it cannot split."""


class OptionError(RealmbenchError):
    """An option that does not exist, does not apply, or has a wrong value."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Build the error for an unknown name, with the nearest known names and the whole list."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
    listing = ", ".join(names) if names else "none"
    return UnknownNameError(f"unknown {kind} {name!r}.{hint} Known: {listing}.")

"""Named random streams and stable hashes: adding a component moves no other component's numbers."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def stable_hash(value: Any, length: int = 16) -> str:
    """Hash a JSON-like value; the same in every process and on every machine.

    Parameters
    ----------
    value : anything that ``json.dumps`` takes; keys are sorted first.
    length : number of hexadecimal digits kept.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def stream_seed(root_seed: int, *names: str | int | float) -> int:
    """Derive a 63-bit seed for one named stream from the root seed."""
    return int(stable_hash([root_seed, *names]), 16) >> 1


def stream(root_seed: int, *names: str | int | float) -> np.random.Generator:
    """Return the random generator of one named stream, for example ``stream(7, "beta", subject, day)``."""
    return np.random.Generator(np.random.PCG64(stream_seed(root_seed, *names)))

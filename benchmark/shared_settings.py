"""Torch's settings of the whole process: whoever changes them changes how every other decoder computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from .errors import RealmbenchError

ADVICE = "everything that this process computes would follow; name it where tensors and modules are made"


class Setting(NamedTuple):
    """How a setting is read and written, and what it is where nobody has touched it; None if that differs."""

    read: Callable[[], Any]
    write: Callable[[Any], object]
    untouched: Any


SETTINGS = {
    "default precision": Setting(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    "default device": Setting(torch.get_default_device, torch.set_default_device, torch.device("cpu")),
    "precision of products": Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    "recording of gradients": Setting(torch.is_grad_enabled, torch.set_grad_enabled, True),
    "number of threads": Setting(torch.get_num_threads, torch.set_num_threads, None),
}


@contextmanager
def settings_left_alone(whose: str) -> Iterator[None]:
    """Refuse that code changes torch's settings for all others, here or where it was imported; put them back.

    A file with ``torch.set_default_dtype(torch.float64)`` in it would have the next model trained in double precision,
    and its record say nothing of it.

    Raises
    ------
    RealmbenchError : a setting is not what it was, or not torch's own to begin with; names it.
    """
    before = {name: setting.read() for name, setting in SETTINGS.items()}
    for name, setting in SETTINGS.items():
        if setting.untouched is not None and before[name] != setting.untouched:
            raise RealmbenchError(
                f"torch's {name} is {before[name]} instead of {setting.untouched}: something that has been imported "
                f"sets it. {ADVICE[0].upper()}{ADVICE[1:]}"
            )
    changed: list[str] = []
    try:
        yield
    finally:
        for name, setting in SETTINGS.items():
            if (now := setting.read()) != before[name]:
                changed.append(f"torch's {name} from {before[name]} to {now}")
                setting.write(before[name])
    if changed:
        raise RealmbenchError(f"{whose} has set {' and '.join(changed)}: {ADVICE}")

"""Running code that is not ours: it ends no process, prints into no answer, changes nothing that others compute by."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple

from .errors import RealmbenchError


class Setting(NamedTuple):
    """A setting of torch for the whole process.

    Attributes
    ----------
    write : puts a value back.
    untouched : its value where nobody has touched it; None if that is no matter.
    instead : what to do instead of changing it.
    """

    read: Callable[[], Any]
    write: Callable[[Any], object]
    untouched: Any
    instead: str


@contextmanager
def others_code(whose: str) -> Iterator[None]:
    """Hold what runs inside to its own business.

    What it prints goes to standard error, where it exits that is an error, and torch's settings are put back: behind
    ``torch.set_default_dtype(torch.float64)`` the next model would be trained in double precision, and its record say
    nothing of it.

    Raises
    ------
    RealmbenchError : it has exited or changed a setting, or something imported before has; names what.
    """
    settings = _settings()
    before = {name: setting.read() for name, setting in settings.items()}
    for name, setting in settings.items():
        if setting.untouched not in (None, before[name]):
            raise RealmbenchError(
                f"torch's {name} is {before[name]} for the whole process, not {setting.untouched}: something that "
                f"was imported or run before has set it; {setting.instead}"
            )
    try:
        with redirect_stdout(sys.stderr):
            yield
    except SystemExit as error:
        raise RealmbenchError(f"{whose} exits instead of raising an error: SystemExit: {error}") from error
    finally:
        changed = _put_back(before)
    if changed:
        name, now = next(iter(changed.items()))
        raise RealmbenchError(
            f"{whose} has set torch's {name} from {before[name]} to {now} for the whole process, others' computations "
            f"included; {settings[name].instead}"
        )


def _put_back(before: Mapping[str, Any]) -> dict[str, Any]:
    """Write the settings that are not as before, and return what they had become."""
    changed = {}
    for name, setting in _settings().items():
        if (now := setting.read()) != before[name]:
            changed[name] = now
            setting.write(before[name])
    return changed


@functools.cache
def _settings() -> dict[str, Setting]:
    """Return torch's settings by name; the first call makes products single precision, whatever the environment is."""
    import torch

    def products() -> str:
        try:
            return torch.get_float32_matmul_precision()
        except RuntimeError:  # torch's way to say that its older and its newer switches disagree
            return "mixed"

    torch.set_float32_matmul_precision("highest")
    made = "name it where tensors and modules are made"
    return {
        "default precision": Setting(torch.get_default_dtype, torch.set_default_dtype, torch.float32, made),
        # Not the CPU by its name: torch would then hand every operation through a mode that costs time.
        "default device": Setting(
            torch.get_default_device, lambda _: torch.set_default_device(None), torch.device("cpu"), made
        ),
        "recording of gradients": Setting(
            torch.is_grad_enabled, torch.set_grad_enabled, True, "use `with torch.no_grad()`"
        ),
        "float32 matmul precision": Setting(
            products, torch.set_float32_matmul_precision, "highest", "single precision is single precision here"
        ),
        "use of deterministic algorithms": Setting(
            torch.are_deterministic_algorithms_enabled,
            lambda wanted: torch.use_deterministic_algorithms(wanted, warn_only=True),
            None,
            "on a GPU the harness asks for them",
        ),
        "number of threads": Setting(
            torch.get_num_threads, torch.set_num_threads, None, "`--threads` says with how many to compute"
        ),
    }

"""What a run ran on and with: versions, device, threads, memory, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .errors import OptionError
from .fused_operations import register as register_fused_operations

PACKAGES = (
    "realmbench",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "pydantic",
    "safetensors",
    "transformers",
    "mamba-ssm",
)

LONGEST_REASON = 120


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape a result; absent ones are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def device_description(device: str) -> str:
    """Return the name of the processor or GPU behind a torch device."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    if device != "cpu":
        return f"{device} of {device_description('cpu')}"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def ready_device(device: str) -> str:
    """Return the device if torch can use it; make a GPU compute as the CPU does.

    Single precision is single precision: a GPU's convolutions and recurrent layers round to ten bits unless told
    otherwise, more coarsely than a stream may differ from the prediction that was scored. Torch's own kernels give the
    same numbers to the same seed where there is a way, and it warns where there is none. Fused kernels are counted as
    what they consist of.

    Raises
    ------
    OptionError : unknown device, or one that this machine has not.
    """
    import torch

    if device.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, when the first product is computed
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        # Some of torch's messages go on for a page.
        reason = str(error).splitlines()[0].partition(". ")[0][:LONGEST_REASON]
        raise OptionError(f"--device {device} cannot be used here ({reason}); try --device cpu") from error
    if device.startswith("cuda"):
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time
        register_fused_operations()
    return device


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Let torch and the linear algebra of numpy and scipy use so many threads inside.

    For small networks one is fastest: others mostly wait for it, and where cores are busy it waits for them. Sums come
    out differently in the last digits with another number.
    """
    import scipy.linalg  # noqa: F401  # a library that is loaded later would not be limited
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def reset_device_memory(device: str) -> None:
    """Let the mark of `peak_device_memory_mb` begin anew; nothing to do on the CPU."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def peak_device_memory_mb(device: str) -> float | None:
    """Return the largest memory that torch has held on a GPU since the reset, in MB; None on the CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)


def git_commit() -> str | None:
    """Return the commit of the source tree that is running, with ``+changes`` if it was modified; None outside git."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    # An installed copy may lie inside somebody else's repository: only a tree that tracks this file counts.
    if commit is None or git("ls-files", "--error-unmatch", __file__) is None:
        return None
    return f"{commit}+changes" if git("status", "--porcelain", "--untracked-files=no") else commit

"""What an update of each stage of REALM costs at the published size, in time and memory, in the real pipeline."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from realmbench.artifact import ArtifactStore
from realmbench.bench import Bench, BenchResult, BenchTable
from realmbench.decoder import Context
from realmbench.session import Segment, SessionData

from .decoders import RealmStudent
from .fused import kernels, scan
from .mamba2 import Mixer
from .sizes import CHANNELS, RATE, TARGETS, published_session
from .ssd import ssd_chunked

RECIPES = ("paper", "paper-v1")
# What the stages call themselves in their progress, and in `train` options.
STAGES = {"teacher": "teacher", "student": "student", "fine-tuning": "finetune"}
# Updates before those that are timed: kernels are chosen, memory is taken.
WARM_UP = 3
# The published batches are for a GPU; a CPU is timed on as many windows, and the time taken as proportional.
CPU_WINDOWS = 2
SECONDS, VALIDATION_S = 60, 10
OUT_OF_MEMORY = "out of memory"


class Case(NamedTuple):
    """A way to compute the same update."""

    precision: str
    triton: bool

    @property
    def name(self) -> str:
        return f"{self.precision}, {'Triton' if self.triton else 'plain'} scan"


@dataclass
class StageTimes:
    """What one stage showed.

    Attributes
    ----------
    seconds : of single updates; none where memory ran out.
    memory_gb : the most that torch held on the device.
    windows, updates : of the recipe.
    scale : windows of the recipe for one that was timed.
    """

    seconds: list[float] = field(default_factory=list)
    memory_gb: float | None = None
    windows: int = 0
    updates: int = 0
    scale: float = 1.0

    @property
    def median(self) -> float:
        """Seconds of an update as timed; not a number where there are none."""
        return statistics.median(self.seconds) if self.seconds else math.nan


class Watch:
    """Stands where a progress bar would, and takes the time of every update and the memory of every stage."""

    def __init__(self, device: str) -> None:
        self.stages: dict[str, StageTimes] = {}
        self._on_gpu, self._device = device.startswith("cuda"), device
        self._last = 0.0

    def __call__(self, text: str, _share: float) -> None:
        now = time.perf_counter()  # the loss has been read by the host: the device has done its work
        stage = next(name for said, name in STAGES.items() if text.startswith(said))
        if stage in self.stages:
            self.stages[stage].seconds.append(now - self._last)
        else:
            self.stages[stage] = StageTimes()
            _free(self._device)
            if self._on_gpu:
                torch.cuda.reset_peak_memory_stats(self._device)
        if self._on_gpu:
            self.stages[stage].memory_gb = torch.cuda.max_memory_allocated(self._device) / 1e9
        self._last = time.perf_counter()


class StagesBench(Bench):
    """Every stage of both published recipes on noise of the published shape, in every way that the device offers."""

    def measure(self, device: str, rounds: int, on_progress: Callable[[str, float], None]) -> BenchResult:
        rows: list[list[str | float]] = []
        seconds: dict[str, dict[str, list[float]]] = {}
        sentences = []
        asked = [(recipe, case) for recipe in RECIPES for case in _cases(device)]
        for number, (recipe, case) in enumerate(asked):
            on_progress(f"{recipe}, {case.name}", number / len(asked))
            whole = 0.0
            for stage, times in time_stages(recipe, case, device, rounds).items():
                seconds.setdefault(f"{recipe}, {stage}", {})[case.name] = times.seconds
                memory = "" if times.memory_gb is None else round(times.memory_gb, 1)
                once = times.median * times.scale
                whole += once * times.updates
                spent = OUT_OF_MEMORY if math.isnan(once) else round(1e3 * once, 1)
                rows.append([recipe, stage, str(times.windows), case.name, spent, memory])
            if not math.isnan(whole):
                sentences.append(f"All updates of {recipe} ({case.name}) take {whole / 3600:,.1f} hours.")
        sentences.append("Stages may stop early, and validation comes on top.")
        if any(OUT_OF_MEMORY in row for row in rows):
            sentences.append("What comes after a stage for which memory ran out is not timed.")
        if not device.startswith("cuda"):
            sentences.append(f"Timed on {CPU_WINDOWS} windows an update, and taken as proportional to their number.")
        columns = ["recipe", "stage", "windows", "how", "ms per update", "device GB"]
        table = BenchTable(title="One update of every stage, 5 s of 96 channels a window", columns=columns, rows=rows)
        return BenchResult(tables=[table], sentences=sentences, seconds=seconds)


def _cases(device: str) -> list[Case]:
    if not device.startswith("cuda"):
        return [Case("float32", False)]
    scans = (False, True) if kernels() is not None else (False,)
    return [Case(precision, triton) for triton in scans for precision in ("float32", "bfloat16")]


def time_stages(recipe: str, case: Case, device: str, rounds: int) -> dict[str, StageTimes]:
    """Run the stages of a recipe for a few updates each, up to one for which the device's memory is too small."""
    updates = WARM_UP + rounds + 1  # the last is followed by a validation, and not timed
    published = RealmStudent(recipe).config["train"]
    changed: dict[str, Any] = {"updates": updates, "evaluate_every": updates}
    if not device.startswith("cuda"):
        changed["batch_size"] = CPU_WINDOWS
    train = {f"{stage}.{key}": value for stage in STAGES.values() for key, value in changed.items()}
    decoder = RealmStudent(recipe, {"precision": case.precision}, train)
    watch = Watch(device)
    with TemporaryDirectory() as folder, _scanning(scan if case.triton else ssd_chunked):
        context = Context(0, device, ArtifactStore(Path(folder), "bench", {}), Path(folder), watch)
        sessions = [noise(seed) for seed in range(2)]
        ran_out = False
        try:
            decoder.adapt(sessions[0], context, decoder.pretrain(sessions, context))
        except torch.OutOfMemoryError:
            ran_out = True  # what was allocated is held until the error is forgotten
        if ran_out:
            finished = sum(len(times.seconds) == updates - 1 for times in watch.stages.values())
            watch.stages[list(STAGES.values())[finished]] = StageTimes()
    _free(device)
    return {
        stage: StageTimes(
            times.seconds[WARM_UP - 1 : -1],
            times.memory_gb,
            windows=published[stage]["batch_size"],
            updates=published[stage]["updates"],
            scale=published[stage]["batch_size"] / decoder.config["train"][stage]["batch_size"],
        )
        for stage, times in watch.stages.items()
    }


def _free(device: str) -> None:
    """Give back what earlier trainings held: torch leaves a process's first optimiser in a circle of references."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def noise(seed: int) -> SessionData:
    """Return a session of noise of the shape of the authors' data."""
    generator = np.random.default_rng(seed)
    shape = published_session()

    def segment(seconds: int) -> Segment:
        x, y = (generator.standard_normal((seconds * RATE, *rest)) for rest in ((CHANNELS, 1), (len(TARGETS),)))
        return Segment(x.astype(np.float32), y.astype(np.float32), 0, 0)

    shared = {name: getattr(shape, name) for name in shape.__dataclass_fields__}
    return SessionData(
        **{**shared, "name": f"noise-{seed}"},
        train=(segment(SECONDS),),
        validation=(segment(VALIDATION_S),),
        key=f"noise-{seed}",
    )


@contextmanager
def _scanning(chosen: Callable[..., Any]) -> Iterator[None]:
    """Let all blocks scan in this way in training."""
    before = Mixer.scan
    Mixer.scan = staticmethod(chosen)
    try:
        yield
    finally:
        Mixer.scan = staticmethod(before)

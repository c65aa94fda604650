"""A loader in one file: two subjects whose LFP follows a random velocity. Also the example of CONTRIBUTING.md."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from realmbench.dataset import Dataset, DatasetInfo, Fold, SessionInfo
from realmbench.recording import Recording
from realmbench.seeds import stream


class ToyOptions(BaseModel):
    """What `--set data.` may change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float = 64.0
    noise: float = 10.0
    damage: str = "none"


class Toy(Dataset):
    """Four channels at 250 Hz that carry a slow two-dimensional velocity in noise."""

    variants: ClassVar[Mapping[str, str]] = {"default": "three sessions each of two subjects"}
    Options: ClassVar[type[BaseModel]] = ToyOptions
    options: ToyOptions

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo(
            name="toy", version="1", summary="example", licence="MIT", citation="none", home="here", size="none",
            task="none", signals="simulated", channels=4, sampling_rate=250.0,
        )  # fmt: skip

    def sessions(self) -> list[SessionInfo]:
        return [SessionInfo(name=f"{who}{day}", subject=who, day=day) for who in "ab" for day in range(3)]

    def folds(self) -> list[Fold]:
        return [Fold(name=who, pretrain=(f"{who}0", f"{who}1"), held_out=(f"{who}2",)) for who in "ab"]

    def load(self, session: str) -> Recording:
        info = self.session(session)
        rate, count = 250.0, int(self.options.seconds * 250)
        generator = stream(0, "toy", session)
        mixing = stream(0, "toy mixing", info.subject).standard_normal((2, 4))
        white = generator.standard_normal((count, 2))
        # A one-pole low-pass of 100 ms: a velocity that lives below 2 Hz.
        velocity = np.empty_like(white)
        state = np.zeros(2)
        for index in range(count):
            state = 0.96 * state + white[index]
            velocity[index] = state
        lfp = 10 * velocity @ mixing + self.options.noise * generator.standard_normal((count, 4))
        if self.options.damage == "nan channel":
            lfp[:, 1] = np.nan
        elif self.options.damage == "all constant":
            lfp[:] = 3.0
        times = np.arange(count) / rate + (1e6 if self.options.damage == "other clock" else 0.0)
        return Recording(
            dataset="toy", subject=info.subject, session=session, lfp=lfp.astype(np.float32), sampling_rate=rate,
            lfp_start=0.0, behaviour=velocity.astype(np.float32), behaviour_times=times,
            behaviour_names=("velocity_x", "velocity_y"), behaviour_units=("cm/s", "cm/s"),
        )  # fmt: skip

"""A run that holds its decoder to the past on every test block of every stage, and to leaving its data alone.

Beside `single_run`, whose code decides whether finished records still hold: what is asked here changes no score, and no
time that is recorded; at most the peak of memory.
"""

from __future__ import annotations

import numpy as np

from .artifact import digest_of
from .decoder import Context, Decoder
from .errors import RealmbenchError
from .evaluation import STREAM_TOLERANCE, Evaluation, check_stream
from .others_code import others_code
from .preparation import Prepared
from .records import RunRecord
from .single_run import SingleRun


class HeldRun(SingleRun):
    """A run, every stage of which is refused where predictions see more than the decoder declares."""

    def record(self) -> RunRecord:
        with others_code(self.plan.request.model):
            return super().record()

    def _fit_and_score(self, prepared: Prepared) -> tuple[Decoder, Evaluation, Context]:
        before = self._artifact_digest()
        with self.bank.left_alone(self.plan.request.model, [prepared]):
            decoder, evaluation, context = super()._fit_and_score(prepared)
        if self._artifact_digest() != before:
            raise RealmbenchError(
                f"{self.plan.request.model} has written into the arrays of the artifact that it was handed, from which "
                "other sessions and stages start; let it work on a copy"
            )
        if decoder.streams:
            check_shorter_blocks(decoder, prepared)
            check_stream(decoder, prepared)
        return decoder, evaluation, context

    def _artifact_digest(self) -> str | None:
        return None if self.artifact is None else digest_of(self.artifact.arrays)


def check_shorter_blocks(decoder: Decoder, prepared: Prepared) -> None:
    """Decode two thirds of each test block, and all but its last second, and compare them with what the whole gives.

    Raises
    ------
    RealmbenchError : they differ by more than the declared look-ahead permits.
    """
    data, name = prepared.data, type(decoder).__name__
    ahead = int(np.ceil(decoder.look_ahead_s * data.rate - 1e-6))
    for block in prepared.test:
        whole = np.array(decoder.predict(block.x.copy(), data))
        frames = len(block.x)
        for cut in (frames * 2 // 3, frames - data.rate):
            if cut <= ahead:
                continue
            part = np.array(decoder.predict(block.x[:cut].copy(), data))[: cut - ahead]
            difference = float(np.abs(part - whole[: cut - ahead]).max())
            if not difference <= STREAM_TOLERANCE:
                declared = "causal" if decoder.causal else f"to wait for {decoder.look_ahead_s:g} s of the future"
                raise RealmbenchError(
                    f"{name} is declared {declared}, but its predictions of the test block at {block.start_s:g} s "
                    f"differ by {difference:.2g} standard deviations of the target where the block ends "
                    f"{(frames - cut) / data.rate:g} s earlier (at most {STREAM_TOLERANCE:g} is allowed): predict sees "
                    "more of the future, keeps something from call to call, or is random; `realmbench check` says which"
                )

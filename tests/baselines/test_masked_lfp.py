"""masked-lfp: tokens and masks by hand, the read-out against scikit-learn, what pretraining and distillation leave."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from realmbench.artifact import ArtifactStore, load_arrays
from realmbench.baselines import masked_lfp
from realmbench.baselines.masked_lfp import MaskedLfp, MaskedLfpDistilled
from realmbench.baselines.masked_network import MaskedAutoencoder, MaskedOptions, PatchEncoder
from realmbench.decoder import Context
from realmbench.session import Segment, SessionData
from realmbench.training.loop import FitResult
from realmbench.training.masking import block_mask
from realmbench.training.windows import Batch, WindowSampler

SMALL = MaskedOptions(patch=2, width=16, heads=2, layers=1, window_s=1.0, dropout=0.0)
QUICK = {"pretrain.updates": 30, "pretrain.evaluate_every": 10, "pretrain.window_s": 1.0, "finetune.updates": 0}


@pytest.fixture
def sessions(session_maker: Any) -> list[SessionData]:
    """Three sessions with spikes that follow the target."""

    def spiking(segment: Segment, seed: int) -> Segment:
        mixing = np.random.default_rng(5).standard_normal((2, 4))
        rates = np.exp(0.5 * segment.y @ mixing)
        counts = np.random.default_rng(seed).poisson(rates)[..., None]
        return replace(segment, privileged=counts.astype(np.float32))

    made = [session_maker(name=f"s{number}", seed=number) for number in range(3)]
    return [
        replace(
            session,
            train=tuple(spiking(segment, number) for segment in session.train),
            validation=tuple(spiking(segment, 10 + number) for segment in session.validation),
        )
        for number, session in enumerate(made)
    ]


def encoder(sessions: int = 2) -> PatchEncoder:
    torch.manual_seed(0)
    made = PatchEncoder(channels=5, features=3, rate=50, sessions=sessions, options=SMALL).eval()
    torch.nn.init.normal_(made.place.rows)
    return made


def test_patches_hold_neighbouring_channels_and_are_filled_up_with_zeros() -> None:
    x = torch.arange(5 * 3, dtype=torch.float32).view(1, 1, 5, 3)
    patched = encoder().patched(x)
    assert patched.shape == (1, 1, 3, 6)
    assert patched[0, 0].tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13, 14, 0, 0, 0]]


def test_hidden_tokens_are_not_seen() -> None:
    """What is masked changes nothing of what is predicted; what is visible does."""
    torch.manual_seed(1)
    model = MaskedAutoencoder(encoder(), SMALL).eval()
    x = torch.randn(2, 20, 5, 3)
    hidden = torch.zeros(2, 20, 3, dtype=torch.bool)
    hidden[:, 5:12, 1] = True  # channels 2 and 3
    session = torch.tensor([0, 1])
    changed, seen = x.clone(), x.clone()
    changed[:, 5:12, 2:4] += 100
    seen[:, 5:12, 0] += 1
    with torch.no_grad():
        before = model(x, session, hidden)
        torch.testing.assert_close(model(changed, session, hidden), before)
        assert (model(seen, session, hidden) - before).abs().max() > 1e-4


def test_tokens_carry_their_own_time_and_session() -> None:
    model = encoder()
    x = torch.randn(1, 20, 5, 3)
    with torch.no_grad():
        first, second = model(x, torch.tensor([0])), model(x, torch.tensor([1]))
        assert (first - second).abs().max() > 1e-4
        torch.testing.assert_close(model(x), model(x, torch.tensor([0])))


def test_long_records_are_decoded_window_by_window() -> None:
    model = encoder()
    x = torch.randn(2, 130, 5, 3)
    with torch.no_grad():
        whole = model(x, torch.tensor([1, 0]))
        start = model(x[:, :50], torch.tensor([1, 0]))
    assert whole.shape == (2, 130, 16)
    torch.testing.assert_close(whole[:, :37], start[:, :37])  # up to the middle of the first overlap


def test_read_out_is_scikit_learns_ridge_on_the_frozen_representation(
    sessions: list[SessionData], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked_lfp, "STRENGTHS", (10.0,))
    decoder = MaskedLfp("tiny", {}, QUICK)
    artifact = decoder.pretrain(sessions[:2], context)
    decoder.adapt(sessions[2], context, artifact)
    network = decoder.network
    assert network is not None

    def represented(segment: Segment) -> np.ndarray:
        with torch.no_grad():
            return network.encoder(torch.from_numpy(segment.x)[None])[0].double().numpy()  # type: ignore[union-attr]

    train = sessions[2].train
    reference = Ridge(alpha=10.0).fit(
        np.concatenate([represented(segment) for segment in train]), np.concatenate([segment.y for segment in train])
    )
    test = sessions[2].validation[0]
    np.testing.assert_allclose(decoder.predict(test.x, sessions[2]), reference.predict(represented(test)), atol=1e-4)


def test_new_session_starts_from_the_mean_of_the_patch_embeddings(
    sessions: list[SessionData], context: Context
) -> None:
    decoder = MaskedLfp("tiny", {}, QUICK)
    artifact = decoder.pretrain(sessions[:2], context)
    assert artifact.arrays["place.rows"].shape[0] == 2
    decoder.adapt(sessions[2], context, artifact)
    np.testing.assert_allclose(
        decoder.arrays()["encoder.place.rows"][0], artifact.arrays["place.rows"].mean(0), atol=1e-6
    )


def test_pretraining_needs_no_labels(sessions: list[SessionData], context: Context) -> None:
    first = MaskedLfp("tiny", {}, QUICK).pretrain(sessions[:2], context).arrays
    for session in sessions[:2]:
        for segment in (*session.train, *session.validation):
            segment.y[:] = np.random.default_rng(0).standard_normal(segment.y.shape)
    other = Context(0, "cpu", ArtifactStore(context.checkpoints / "other", "code", {}), context.checkpoints)
    second = MaskedLfp("tiny", {}, QUICK).pretrain(sessions[:2], other).arrays
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_distillation_brings_the_student_to_the_spike_teacher(sessions: list[SessionData], context: Context) -> None:
    """Its loss falls, its parent is the teacher, other spikes give another student, and predicting needs none."""
    train = {**QUICK, "teacher.updates": 20, "teacher.evaluate_every": 10, "pretrain.updates": 60}
    decoder = MaskedLfpDistilled("tiny", {"spike_patch": 2}, train)
    artifact = decoder.pretrain(sessions[:2], context)
    history = artifact.record.history
    assert history[-1]["score"] > history[0]["score"] + 0.5
    assert len(artifact.record.parents) == 1
    decoder.adapt(sessions[2], context, artifact)
    assert np.isfinite(decoder.predict(sessions[2].validation[0].x, sessions[2])).all()

    fewer = [
        replace(session, train=tuple(replace(part, privileged=part.privileged[:, :3]) for part in session.train),
                validation=tuple(replace(part, privileged=part.privileged[:, :3]) for part in session.validation),
                key=session.key + "fewer")
        for session in sessions[:1]
    ]  # fmt: skip
    other = MaskedLfpDistilled("tiny", {"spike_patch": 2}, train).pretrain([*fewer, sessions[1]], context)
    assert np.abs(other.arrays["embed.weight"] - artifact.arrays["embed.weight"]).max() > 1e-4


def test_predictor_equals_a_plain_one_that_reorders_nothing(sessions: list[SessionData]) -> None:
    """Token by token: what is visible is read with its own time, what is hidden asked for with its own patch."""
    torch.manual_seed(2)
    model = MaskedAutoencoder(encoder(), SMALL).eval()
    x, session = torch.randn(2, 12, 5, 3), torch.tensor([1, 0])
    hidden = torch.stack([torch.randperm(36).view(12, 3) < 20 for _ in range(2)])
    with torch.no_grad():
        actual = model(x, session, hidden)
        for row in range(2):
            tokens = model.encoder.embed(model.encoder.patched(x[row : row + 1]))[0]  # (T, S, d)
            tokens = tokens + model.encoder.place.rows[session[row]]
            seen = [(t, s) for t in range(12) for s in range(3) if not hidden[row, t, s]]
            times = torch.tensor([[t for t, _ in seen]])
            code = torch.stack([tokens[t, s] for t, s in seen])[None]
            for layer in model.encoder.layers:
                code = layer(code, times)
            code = model.project(model.encoder.norm(code))[0]
            asked = model.mask_token + model.project(model.encoder.place.rows[session[row]])
            grid = [code[seen.index((t, s))] if (t, s) in seen else asked[s] for t in range(12) for s in range(3)]
            filled = torch.stack(grid)[None]
            for layer in model.layers:
                filled = layer(filled, torch.arange(12).repeat_interleave(3)[None])
            expected = model.output(model.norm(filled))[0].view(12, 3, -1)
            torch.testing.assert_close(actual[row], expected, atol=1e-5, rtol=1e-4)


def test_time_is_that_of_the_frame_for_every_patch() -> None:
    """Two patches that hold the same and mean the same cannot be told apart: their tokens have the same time."""
    model = encoder()
    with torch.no_grad():
        model.place.rows[:, 1] = model.place.rows[:, 0]
        x = torch.randn(1, 20, 5, 3)
        swapped = x[:, :, [2, 3, 0, 1, 4]]
        torch.testing.assert_close(model(x), model(swapped), atol=1e-5, rtol=1e-4)


def test_error_is_that_of_hidden_values_of_usable_channels(
    sessions: list[SessionData], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With predictions of zero it is the mean square of the frames that are hidden, dead channels left out."""
    captured: list[tuple[torch.Tensor, Batch, torch.Tensor]] = []
    masks: list[torch.Tensor] = []

    def capture(model: Any, kind: str, loss: Any, validation: Any, *rest: Any) -> FitResult:
        batch = WindowSampler(sessions, 1.0, 4, np.random.default_rng(0), "cpu").draw()
        batch = replace(batch, mask=torch.tensor([[True, False, True]]).expand(4, -1))
        monkeypatch.setattr(model, "forward", lambda x, session, hidden: torch.zeros(*hidden.shape, 2 * 2))
        captured.append((loss(batch), batch, masks[-1]))
        return FitResult([], 0.0)

    def noted(*arguments: Any) -> torch.Tensor:
        masks.append(block_mask(*arguments))
        return masks[-1]

    monkeypatch.setattr(masked_lfp, "_fitted", capture)
    monkeypatch.setattr(masked_lfp, "block_mask", noted)
    MaskedLfp("tiny", {"patch": 2}, QUICK).pretrain(sessions, context)
    value, batch, rows = captured[0]
    hidden = rows.view(4, 2, 50).transpose(1, 2)  # patches hold channels 0 and 1, and 2
    squares = batch.x.square()
    expected = torch.cat([squares[:, :, 0][hidden[..., 0]], squares[:, :, 2][hidden[..., 1]]]).mean()
    torch.testing.assert_close(value, expected)


def test_student_learns_from_the_teacher_of_the_artifact(
    sessions: list[SessionData], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[PatchEncoder] = []
    original = MaskedLfpDistilled._distil

    def distil(self: Any, teacher: PatchEncoder, *rest: Any) -> Any:
        seen.append(teacher)
        return original(self, teacher, *rest)

    monkeypatch.setattr(MaskedLfpDistilled, "_distil", distil)
    train = {**QUICK, "teacher.updates": 10, "teacher.evaluate_every": 5}
    artifact = MaskedLfpDistilled("tiny", {"spike_patch": 2}, train).pretrain(sessions[:2], context)
    [parent] = artifact.record.parents
    stored = load_arrays(context.artifacts.folder / f"masked-spikes-{parent}.safetensors")[0]
    for name, tensor in seen[0].state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), stored[name])

"""Checks of the decoder contract: everything but causality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np

from realmbench import leaks
from realmbench.cost import held_bytes
from realmbench.errors import OptionError, RealmbenchError
from realmbench.plan import refuse_contradictions
from realmbench.session import Session

from .candidate import Candidate
from .report import NO_STREAM, Failed, NotApplicable

STREAM_TOLERANCE = 1e-5
DEAF = "its predictions ignore the LFP, so that causality is trivial"


def declares(c: Candidate) -> str:
    """The class says what the contract asks."""
    if not c.cls.__doc__:
        raise Failed("the class has no docstring; `realmbench show` prints it")
    if missing := {"tiny", "small"} - set(c.cls.presets):
        raise Failed(f"presets {', '.join(sorted(missing))} are missing")
    for preset in c.cls.presets:
        try:
            refuse_contradictions(f"preset {preset}", c.cls(preset))
        except OptionError as error:
            raise Failed(str(error)) from None
    return f"presets {', '.join(c.cls.presets)}"


def learns(c: Candidate) -> str:
    """Pretraining and adaptation run and leave a decoder that predicts finite numbers of the right shape."""
    x = c.frames(100)
    output = c.decoder.predict(x, c.session)
    if not isinstance(output, np.ndarray) or output.dtype.kind != "f":
        kind = f"numbers of type {output.dtype}" if isinstance(output, np.ndarray) else f"a {type(output).__name__}"
        raise Failed(f"predict returned {kind}, expected a numpy array of real floating-point numbers")
    if output.shape != (100, c.session.outputs):
        raise Failed(f"predict returned {output.shape}, expected {(100, c.session.outputs)}")
    if not np.isfinite(output).all():
        raise Failed("predict returned NaN or infinite values")
    return f"{c.front_end.name}, {c.session.channels} channels x {c.session.features} features"


def any_length(c: Candidate) -> str:
    """Records of any length are decoded."""
    lengths = (1, 2, 7, 777)
    for length in lengths:
        shape = np.shape(c.decoder.predict(c.frames(length), c.session))
        if shape != (length, c.session.outputs):
            raise Failed(f"{length} frames gave {shape}")
    return ", ".join(map(str, lengths)) + " frames"


def same_seed_same_numbers(c: Candidate) -> str:
    """Training again with the same seed gives the same decoder, whatever another has learnt in between."""
    x = c.frames(200)
    first = c.decoded(c.decoder, x)
    between = ""
    if c.elsewhere is not None:
        c.fit(0, "first", c.elsewhere)  # what the first has left of pretraining is taken
        between = f", with one on {c.elsewhere.name} in between"
        change = float(leaks.largest_change(first, c.decoded(c.decoder, x)))
        if change > leaks.TOLERANCE:
            raise Failed(
                f"fitting another one on {c.elsewhere.name} changes predictions by {change:.2g}: something that is "
                "learnt is kept outside of the instance (a global, a class attribute)"
            )
    change = float(leaks.largest_change(first, c.decoded(c.fit(0, "again"), x)))
    if change > 0:
        raise Failed(f"two trainings with seed 0{between}, differ by {change:.2g}")
    return f"bit for bit{between}"


def a_pause_is_no_obstacle(c: Candidate) -> str:
    """A target that rests through all of validation, as seconds of it may, still leaves a decoder."""
    resting = tuple(replace(segment, y=np.ones_like(segment.y)) for segment in c.session.validation)
    output = c.fit(0, "rest", replace(c.session, validation=resting, key="rest")).predict(c.frames(50), c.session)
    if not np.isfinite(output).all():
        raise Failed("predict returned NaN or infinite values")
    return "R2 of validation is not defined, and it learns all the same"


def parameters_are_declared(c: Candidate) -> str:
    """The declared count fits what is stored."""
    count = c.decoder.parameters()
    stored = sum(array.size for array in c.decoder.arrays().values())
    if not 0 <= count.trained <= count.deployed <= stored:
        raise Failed(f"trained {count.trained:,} <= deployed {count.deployed:,} <= stored {stored:,} does not hold")
    if count.deployed == 0:
        raise Failed("no parameter is declared")
    return f"{count.deployed:,} deployed, {count.trained:,} of them trained on the session"


def operations_are_counted(c: Candidate) -> str:
    """Every operation of a frame is in the count."""
    count = c.decoder.flops(c.session)
    if count.per_step < 0 or count.elementwise < 0:
        raise Failed(f"{count.per_step} + {count.elementwise} operations per frame are declared")
    if count.per_step + count.elementwise == 0 and _hears(c) > leaks.TOLERANCE:
        raise Failed("no operation is declared, but predictions depend on the LFP")
    if count.uncounted:
        raise Failed(f"operations without a formula: {', '.join(count.uncounted)}; see realmbench.training.flops")
    return f"{count.per_step:,} in products, {count.elementwise:,} element by element"


def training_is_timed(c: Candidate) -> str:
    """Learning counts its seconds."""
    _ = c.decoder
    if not c.seconds:
        raise Failed('adapt counts none of its time; let it learn inside `with context.phase("fit"):`')
    return ", ".join(c.seconds)


def saved_and_loaded(c: Candidate) -> str:
    """A saved decoder comes back with the same predictions, parameters and configuration, without the training data."""
    bare = Session(**{each.name: getattr(c.session, each.name) for each in fields(Session)})
    path = c.decoder.save(c.saved, c.session)
    loaded = c.cls.load(path, bare)
    x = c.frames(300)
    change = float(leaks.largest_change(c.decoded(c.decoder, x), loaded.predict(x, bare)))
    if change > leaks.TOLERANCE:
        raise Failed(f"predictions differ by {change:.2g} after loading")
    if loaded.parameters().deployed != c.decoder.parameters().deployed or loaded.config != c.decoder.config:
        raise Failed("parameters or configuration differ after loading")
    return f"{path.stat().st_size:,} bytes"


def masked_channels_count_for_nothing(c: Candidate) -> str:
    """Whatever a left-out electrode records, predictions stay."""
    masked = np.flatnonzero(~c.session.mask[: c.raw.shape[1]])
    if not len(masked):
        raise NotApplicable("no channel of this session is left out")
    changed = c.raw.copy()
    changed[:, masked] = 1e3 * np.random.default_rng(2).standard_normal((len(c.raw), len(masked)))
    change = float(leaks.largest_change(c.pipeline(c.raw), c.pipeline(changed)))
    if change > 0:
        raise Failed(f"noise on left-out channel {masked[0]} changes predictions by {change:.2g}")
    # Another day, another electrode: every usable channel but one is gone.
    alone = np.flatnonzero(c.session.mask)[:1]
    only = replace(c.session, mask=np.isin(np.arange(c.session.channels), alone))
    x = np.where(only.mask[:, None], c.frames(100), np.float32(0))
    if not np.isfinite(c.decoder.predict(x, only)).all():
        raise Failed("with a single usable channel predictions are not finite")
    return f"channel {', '.join(map(str, masked))}; a single usable one still decodes"


def every_parameter_learns(c: Candidate) -> str:
    """Every parameter of the network gets a gradient: none is dead weight."""
    if leaks.network_of(c.decoder) is None:
        raise NotApplicable("no torch network")
    import torch

    torch.manual_seed(0)
    network = c.decoder.build(c.session).train()  # type: ignore[attr-defined]
    x = torch.from_numpy(np.stack([c.frames(60), c.frames(60)[::-1]]).copy())
    mask = torch.from_numpy(c.session.mask).expand(2, -1)
    output = network(x, mask)
    (output * torch.randn_like(output)).sum().backward()
    dead = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not torch.isfinite(parameter.grad).all() or not parameter.grad.any()
    ]
    if dead:
        raise Failed(f"no gradient reaches {', '.join(dead[:4])}{' and others' if len(dead) > 4 else ''}")
    return f"{sum(1 for _ in network.parameters())} tensors"


def wrong_input_is_refused(c: Candidate) -> str:
    """Frames of a wrong shape, NaN and an unfitted decoder raise an error instead of returning numbers."""
    x = c.frames(20)
    broken = x.copy()
    broken[5, 0, 0] = np.nan
    cases = {
        "a channel too many": (c.decoder, np.concatenate([x, x[:, :1]], axis=1)),
        "a feature too few": (c.decoder, x[:, :, :-1] if x.shape[2] > 1 else x[:, :, :0]),
        "no feature axis": (c.decoder, x[:, :, 0]),
        "NaN": (c.decoder, broken),
        "an unfitted decoder": (c.new(), x),
    }
    for what, (decoder, frames) in cases.items():
        try:
            decoder.predict(frames, c.session)
        except RealmbenchError:
            continue
        except Exception as error:
            raise Failed(
                f"{what}: {type(error).__name__} instead of a RealmbenchError that says what is wrong"
            ) from error
        raise Failed(f"{what}: predict returned numbers")
    return ", ".join(cases)


def calls_are_independent(c: Candidate) -> str:
    """What was decoded before, first or just now, or shares the batch, changes nothing; nor does a call its frames."""
    x = c.frames(c.stream_frames)
    c.decoder.predict(x, c.session)
    if not np.array_equal(x, c.frames(c.stream_frames)):
        raise Failed("predict writes into the frames that it is handed; let it work on a copy")
    # Two that have decoded nothing yet.
    path = c.decoder.save(c.saved, c.session)
    first, other = (c.cls.load(path, c.session) for _ in range(2))
    other.predict(x[::-1].copy(), c.session)
    kept = float(leaks.largest_change(c.decoded(first, x), c.decoded(other, x)))
    if kept > leaks.TOLERANCE:
        raise Failed(f"what is decoded first after loading changes later predictions by {kept:.2g}")
    again = leaks.repeat_change(c.decoder, c.session, x[:200])
    shared = leaks.batch_change(c.decoder, c.session, x[:200])
    if again > leaks.TOLERANCE:
        raise Failed(f"decoding something else in between changes predictions by {again:.2g}")
    if shared is not None and shared > leaks.TOLERANCE:
        raise Failed(
            f"other records in the batch change predictions by {shared:.2g}: is a batch norm in training mode?"
        )
    return f"repeated {again:.1g}" + ("" if shared is None else f", in a batch {shared:.1g}")


def stream_equals_predict(c: Candidate) -> str:
    """The stream equals `predict` far past the training window."""
    if not c.decoder.streams:
        try:
            c.decoder.stream(c.session)
        except RealmbenchError:
            raise NotApplicable("refuses to stream, as it should") from None
        raise Failed("a decoder of the whole record must refuse to stream")
    x = c.frames(c.stream_frames)
    try:
        stepped = c.decoder.streamed(x, c.session)
    except RealmbenchError as error:
        raise Failed(str(error)) from None
    change = float(leaks.largest_change(stepped, c.decoded(c.decoder, x)[: len(stepped)]))
    if change > STREAM_TOLERANCE:
        raise Failed(f"stream and predict differ by {change:.2g} deviations of the target")
    delay = len(x) - len(stepped)
    late = f", {delay / c.session.rate:g} s late" if delay else ""
    return f"{change:.1g} over {c.stream_frames:,} frames{late}"


def stream_memory_is_constant(c: Candidate) -> str:
    """What a stream holds does not grow with the frames it has seen."""
    if not c.decoder.streams:
        raise NotApplicable(NO_STREAM)
    running = c.decoder.stream(c.session)
    sizes = []
    # The first half fills every window of bounded length; what still grows then grows without limit.
    for frames in np.array_split(c.frames(c.stream_frames), 2):
        for frame in frames:
            running.step(frame)
        sizes.append(held_bytes(running))
    if sizes[1] > sizes[0]:
        raise Failed(f"the stream grew from {sizes[0]:,} to {sizes[1]:,} bytes")
    return f"{sizes[1]:,} bytes with its weights"


def listens(c: Candidate) -> str:
    """Predictions depend on the LFP at all; otherwise everything below holds of nothing."""
    change = _hears(c)
    if change <= leaks.TOLERANCE:
        raise NotApplicable(DEAF)
    return f"another session's LFP changes predictions by {change:.2g}"


def _hears(c: Candidate) -> float:
    return float(leaks.largest_change(c.pipeline(c.raw), c.pipeline(c.other[: len(c.raw)])))


CONTRACT: dict[str, Callable[[Candidate], str]] = {
    "declares what it is": declares,
    "learns and predicts": learns,
    "any length": any_length,
    "same seed, same numbers": same_seed_same_numbers,
    "validation at rest": a_pause_is_no_obstacle,
    "training timed": training_is_timed,
    "parameters declared": parameters_are_declared,
    "save and load": saved_and_loaded,
    "left-out channels": masked_channels_count_for_nothing,
    "gradient for every parameter": every_parameter_learns,
    "wrong input refused": wrong_input_is_refused,
    "calls independent": calls_are_independent,
    "listens to the LFP": listens,
    "operations counted": operations_are_counted,
    "stream equals predict": stream_equals_predict,
    "stream in constant memory": stream_memory_is_constant,
}

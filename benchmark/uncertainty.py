"""Uncertainty of scores from the sums in run records: numpy and scipy alone.

The unit of inference is the session. Below `BOOTSTRAP_SESSIONS` sessions intervals are t-intervals on session means,
from there on a hierarchical bootstrap (sessions, their ten-second blocks, seeds), never narrower than those. Seeds are
crossed with sessions: sessions share a seed's luck (one teacher serves all of a fold), so that many sessions cannot
average it away. With one seed an interval describes those weights and not another training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .records import BlockScore

LEVEL = 0.95
# Below four sessions no interval is printed, below six no significance is claimed (a signed-rank test of five pairs
# cannot reach p < 0.05), from twelve on the bootstrap takes over from the t-interval.
INTERVAL_SESSIONS, SIGNIFICANCE_SESSIONS, BOOTSTRAP_SESSIONS = 4, 6, 12
BOOTSTRAP_DRAWS = 10_000
# R2 differences smaller than this count as practically equal.
EQUIVALENCE = 0.01
BAYESIAN_DRAWS = 50_000
# A score that exceeds an exact ceiling by more standard errors than this has seen what it must not see.
LEAK_ERRORS = 3.0


@dataclass(frozen=True)
class BlockSums:
    """Sums of one session's test blocks, for K seeds of one method.

    Attributes
    ----------
    sse : (K, B, D) squared errors.
    samples : (B,) samples in each block.
    sum, squares : (B, D) sums of the truth and of its squares.
    """

    sse: np.ndarray
    samples: np.ndarray
    sum: np.ndarray
    squares: np.ndarray

    def scores(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Return the axis mean of R2 per seed, (K,); with (N, B) block weights, (N, K)."""
        once = np.ones((1, len(self.samples))) if weights is None else weights
        count = once @ self.samples  # (N,)
        total = once @ self.squares - (once @ self.sum) ** 2 / count[:, None]  # (N, D)
        error = np.einsum("nb,kbd->nkd", once, self.sse, optimize=True)  # (N, K, D)
        scores = (1 - error / total[:, None]).mean(-1)
        return scores[0] if weights is None else scores


def block_sums(seeds: Sequence[Sequence[BlockScore]]) -> BlockSums:
    """Collect the block scores of one session's records, one list per seed; all have the same blocks."""
    first = seeds[0]
    return BlockSums(
        sse=np.array([[block.sse for block in blocks] for blocks in seeds]),
        samples=np.array([block.samples for block in first]),
        sum=np.array([block.sum for block in first]),
        squares=np.array([block.sum_of_squares for block in first]),
    )


@dataclass(frozen=True)
class Interval:
    """A confidence interval and how it was made."""

    low: float
    high: float
    method: str

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def score_matrix(sessions: Sequence[BlockSums], reference: Sequence[BlockSums] | None = None) -> np.ndarray:
    """Return (S, K) scores, or score differences to a reference with the same sessions and number of seeds."""
    scores = np.stack([session.scores() for session in sessions])
    return scores if reference is None else scores - np.stack([session.scores() for session in reference])


def interval(
    sessions: Sequence[BlockSums], reference: Sequence[BlockSums] | None = None, draws: int = BOOTSTRAP_DRAWS
) -> Interval | None:
    """Return the 95 % interval of the mean score over sessions like these, or of its difference to a reference.

    Parameters
    ----------
    sessions : one `BlockSums` per session, all with the same number of seeds.
    reference : the same sessions of another method, with as many seeds.
    draws : of the bootstrap, where it is used.

    Returns
    -------
    None below `INTERVAL_SESSIONS` sessions.
    """
    if len(sessions) < INTERVAL_SESSIONS:
        return None
    scores = score_matrix(sessions, reference)
    if len(sessions) < BOOTSTRAP_SESSIONS:
        return t_interval(scores)
    # With a handful of seeds the bootstrap alone comes out too narrow, so that it may widen the t-interval only.
    bootstrap, least = bootstrap_interval(sessions, reference, draws), t_interval(scores)
    return Interval(min(bootstrap.low, least.low), max(bootstrap.high, least.high), bootstrap.method)


def t_interval(scores: np.ndarray) -> Interval:
    """Return the t-interval of the grand mean of (S, K) scores with sessions and seeds as crossed random effects.

    The variance is that of the two-way layout without replication; degrees of freedom after Satterthwaite (1946). With
    one seed it is Student's interval on session scores.
    """
    from scipy.stats import t

    variance, freedom = crossed_variance(scores)
    half = float(t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(variance))
    mean = float(scores.mean())
    return Interval(mean - half, mean + half, "t")


def crossed_variance(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of the grand mean of (..., S, K) scores and its degrees of freedom.

    The sum of two components: the mean square of sessions, and what the seeds' mean square exceeds that of the
    interaction (Searle, Casella & McCulloch 1992, section 4.4); an excess below zero counts as none. Degrees of freedom
    of the sum after Satterthwaite (1946), each component with its own factor's; where the seeds' component is more than
    half the sessions', at most theirs: without that the interval of many sessions and three seeds covers 92 %, not 95.
    """
    sessions, seeds = scores.shape[-2:]
    mean = scores.mean((-2, -1), keepdims=True)
    by_session = scores.mean(-1, keepdims=True) - mean
    of_sessions = np.square(by_session).sum((-2, -1)) / (sessions - 1) / sessions
    if seeds == 1:
        return of_sessions, np.full(of_sessions.shape, sessions - 1.0)
    by_seed = scores.mean(-2, keepdims=True) - mean
    ms_seeds = sessions * np.square(by_seed).sum((-2, -1)) / (seeds - 1)
    interaction = np.square(scores - mean - by_session - by_seed).sum((-2, -1)) / ((sessions - 1) * (seeds - 1))
    of_seeds = np.maximum(ms_seeds - interaction, 0) / (sessions * seeds)
    variance = of_sessions + of_seeds
    spread = of_sessions**2 / (sessions - 1) + of_seeds**2 / (seeds - 1)
    freedom = np.divide(variance**2, spread, out=np.full_like(variance, sessions - 1.0), where=spread > 0)
    return variance, np.where(of_seeds > of_sessions / 2, np.minimum(freedom, seeds - 1.0), freedom)


def bootstrap_interval(
    sessions: Sequence[BlockSums], reference: Sequence[BlockSums] | None = None, draws: int = BOOTSTRAP_DRAWS
) -> Interval:
    """Return the studentised hierarchical bootstrap interval of the mean score or difference.

    Each draw takes sessions with replacement, within each its blocks, and seeds; blocks are drawn alike for both
    methods. Dividing by each draw's own standard error keeps the extra spread of the inner levels from widening the
    interval (Davison & Hinkley 1997, sections 2.4 and 3.8).
    """
    generator = np.random.default_rng(0)
    count, seeds = len(sessions), len(sessions[0].sse)
    resampled = []
    for index, session in enumerate(sessions):
        blocks = len(session.samples)
        weights = generator.multinomial(blocks, np.full(blocks, 1 / blocks), size=draws).astype(float)
        scores = session.scores(weights)
        resampled.append(scores if reference is None else scores - reference[index].scores(weights))
    pool = np.stack(resampled)  # (S, N, K)
    chosen = generator.integers(count, size=(draws, count))
    # Another draw's blocks each time a session is chosen, so that a session chosen twice has independent blocks.
    from_draw = generator.integers(draws, size=(draws, count))
    columns = generator.integers(seeds, size=(draws, 1, seeds))
    drawn = np.take_along_axis(pool[chosen, from_draw], columns, axis=2)  # (N, S, K)
    observed = score_matrix(sessions, reference)
    error = np.sqrt(crossed_variance(drawn)[0])
    ratios = (drawn.mean((1, 2)) - observed.mean())[error > 0] / error[error > 0]
    scale, mean = float(np.sqrt(crossed_variance(observed)[0])), float(observed.mean())
    # Two methods that score the same everywhere leave no draw an error.
    lower, upper = np.quantile(ratios, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)) if len(ratios) else (0.0, 0.0)
    return Interval(mean - float(upper) * scale, mean - float(lower) * scale, "hierarchical bootstrap")


def block_error(session: BlockSums) -> float:
    """Return the standard error of a session's seed-averaged score, by leaving out one block at a time (jackknife)."""
    blocks = len(session.samples)
    if blocks < 2:
        return float("nan")
    left_out = session.scores(1.0 - np.eye(blocks)).mean(-1)
    return float(np.sqrt((blocks - 1) / blocks * np.square(left_out - left_out.mean()).sum()))


def errors_above_ceiling(sessions: Sequence[BlockSums], ceilings: Sequence[float]) -> float | None:
    """Return by how many standard errors the mean score exceeds the mean ceiling; None where no error can be had.

    The error is known from the blocks alone, so that the excess follows a t distribution; it is returned as the normal
    deviate of equal probability, for which three always means the same, however few the blocks.
    """
    from scipy.stats import norm, t

    freedom = sum(len(session.samples) - 1 for session in sessions)
    error = np.sqrt(np.nansum([block_error(session) ** 2 for session in sessions])) / len(sessions)
    if freedom == 0 or not error > 0:
        return None
    ratio = float((score_matrix(sessions).mean() - np.mean(ceilings)) / error)
    # Beyond some 37 deviations the probability would be 0, and its deviate infinite.
    return float(np.sign(ratio) * norm.isf(max(t.sf(abs(ratio), freedom), np.finfo(float).tiny)))


def distinguishable(difference: Interval | None, p_value: float, sessions: int) -> bool:
    """Return whether a difference may be claimed: enough sessions, an interval without zero, and p at most 0.05."""
    return (
        sessions >= SIGNIFICANCE_SESSIONS
        and difference is not None
        and difference.excludes_zero
        and p_value <= 1 - LEVEL + 1e-12
    )


def signed_rank_p(differences: np.ndarray) -> float:
    """Return the exact two-sided p-value of Wilcoxon's signed-rank test on (S,) session differences.

    Zeros are dropped (Wilcoxon 1945); 1 if all are zero.
    """
    from scipy.stats import wilcoxon

    nonzero = differences[differences != 0]
    # Older versions of scipy would approximate where a zero is among the differences: then five could be claimed.
    return float(wilcoxon(nonzero, method="exact").pvalue) if len(nonzero) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979)."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted.tolist()


def bayesian_signed_rank(differences: np.ndarray, equivalence: float = EQUIVALENCE) -> tuple[float, float, float]:
    """Return the probabilities that the first method is worse, practically equal, and better.

    Bayesian signed-rank test with a region of practical equivalence (Benavoli et al. 2017, section 4.2): a Dirichlet
    process with one pseudo-observation of weight 0.5 at zero; of each posterior draw that statement counts which has
    the largest share of pairs.
    """
    generator = np.random.default_rng(0)
    values = np.concatenate([[0.0], differences])
    weights = generator.dirichlet([0.5, *np.ones(len(differences))], size=BAYESIAN_DRAWS)
    means = (values[:, None] + values[None]) / 2
    worse = np.einsum("ni,ij,nj->n", weights, (means < -equivalence).astype(float), weights, optimize=True)
    better = np.einsum("ni,ij,nj->n", weights, (means > equivalence).astype(float), weights, optimize=True)
    largest = np.stack([worse, 1 - worse - better, better]).argmax(0)
    shares = np.bincount(largest, minlength=3) / len(largest)
    return float(shares[0]), float(shares[1]), float(shares[2])

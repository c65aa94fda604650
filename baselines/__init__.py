"""Baselines: one file per family of decoders."""

from realmbench.registry import Lazy

DECODERS = {
    "mean": Lazy("realmbench.baselines.mean:Mean", "predicts the training mean: the floor of every table"),
    "wiener": Lazy("realmbench.baselines.linear:Wiener", "causal ridge regression on lagged frames"),
    "gru": Lazy("realmbench.baselines.recurrent:Gru", "causal gated recurrent network, one session"),
    "lstm": Lazy("realmbench.baselines.recurrent:Lstm", "causal long short-term memory network, one session"),
    "bigru": Lazy("realmbench.baselines.recurrent:BiGru", "bidirectional GRU, one session: what the future is worth"),
}

"""Baselines: one file per family of decoders."""

from realmbench.registry import Lazy

DECODERS = {
    "mean": Lazy("realmbench.baselines.mean:Mean", "predicts the training mean: the floor of every table"),
    "wiener": Lazy("realmbench.baselines.wiener:Wiener", "causal ridge regression on lagged frames"),
    "wiener-cascade": Lazy("realmbench.baselines.wiener:WienerCascade", "Wiener filter, then a polynomial"),
    "wiener-smoother": Lazy(
        "realmbench.baselines.wiener:WienerSmoother", "ridge regression on frames before and after"
    ),
    "kalman": Lazy("realmbench.baselines.kalman:Kalman", "Kalman filter with a velocity state and estimated noise"),
    "kalman-smoother": Lazy("realmbench.baselines.kalman:KalmanSmoother", "Kalman smoother of the same model"),
    "gru": Lazy("realmbench.baselines.recurrent:Gru", "causal gated recurrent network, one session"),
    "gru-steady": Lazy("realmbench.baselines.steady:SteadyGru", "control: the GRU behind a normaliser that goes on"),
    "gru-pooled": Lazy("realmbench.baselines.pooled:PooledGru", "control: the GRU, trained on other sessions first"),
    "gru-pooled-steady": Lazy(
        "realmbench.baselines.pooled:SteadyPooledGru", "control: the same behind a normaliser that goes on"
    ),
    "lstm": Lazy("realmbench.baselines.recurrent:Lstm", "causal long short-term memory network, one session"),
    "spike-gru": Lazy("realmbench.baselines.recurrent:SpikeGru", "the GRU on spike counts: what LFP gives up"),
    "tcn": Lazy("realmbench.baselines.convolutional:Tcn", "causal dilated convolutions, one session"),
    "tcn-pooled": Lazy("realmbench.baselines.pooled:PooledTcn", "control: the TCN, trained on other sessions first"),
    "tcn-pooled-steady": Lazy(
        "realmbench.baselines.pooled:SteadyPooledTcn", "control: the same behind a normaliser that goes on"
    ),
    "transformer": Lazy("realmbench.baselines.transformer:Transformer", "causal windowed Transformer, one session"),
    "poyo": Lazy("realmbench.baselines.poyo:Poyo", "POYO-style multi-session Transformer: sees the whole window"),
    "masked-lfp": Lazy(
        "realmbench.baselines.masked_lfp:MaskedLfp", "masked-autoencoding LFP Transformer: sees the whole window"
    ),
    "masked-lfp-distilled": Lazy(
        "realmbench.baselines.masked_lfp:MaskedLfpDistilled", "the same, distilled from a teacher of the spikes"
    ),
    "bigru": Lazy("realmbench.baselines.recurrent:BiGru", "bidirectional GRU, one session: what the future is worth"),
}

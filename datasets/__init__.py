"""Dataset loaders: one file per dataset, one folder for the simulator."""

from realmbench.registry import Lazy

DATASETS = {
    "synthetic-reach": Lazy(
        "realmbench.datasets.synthetic:SyntheticReach",
        "simulated multi-session motor-cortex LFP during reaching, with known ground truth",
    ),
    "synthetic-cohort": Lazy(
        "realmbench.datasets.synthetic_cohort:SyntheticCohort",
        "the simulation of synthetic-reach for many subjects, a session of each",
    ),
    "synthetic-lds": Lazy(
        "realmbench.datasets.synthetic_lds:SyntheticLds",
        "linear-Gaussian twin of synthetic-reach whose best causal and non-causal R2 are known exactly",
    ),
    "open-field": Lazy(
        "realmbench.datasets.open_field:OpenField",
        "real LFP of three rodents foraging freely: decode running speed from one electrode",
    ),
}

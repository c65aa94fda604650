"""The linear-Gaussian twin of `synthetic-reach`: its best causal and non-causal R2 are known exactly.

model -> recordings and ceilings, served by `dataset`.
"""

from .dataset import SyntheticLds

__all__ = ["SyntheticLds"]

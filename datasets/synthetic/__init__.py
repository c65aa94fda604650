"""Simulated multi-session motor-cortex LFP during reaching.

kinematics -> latents -> electrodes -> lfp (and spikes), tied together by `simulate` and served by `dataset`.
"""

from .dataset import SyntheticReach

__all__ = ["SyntheticReach"]

"""The conformance suite behind `realmbench check`: what every decoder and dataset must do, whoever wrote it."""

from .dataset import check_dataset
from .decoder import check_decoder
from .report import Check, Report

__all__ = ["Check", "Report", "check_dataset", "check_decoder"]

"""Accuracy."""

from dassl.metrics.accuracy import compute_accuracy

__all__ = ["compute_accuracy"]

"""Accuracy."""

from dassl.metrics.accuracy import compute_accuracy

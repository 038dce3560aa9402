"""Predictions, what is measured of them, and the run record."""

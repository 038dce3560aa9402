"""The data sets that are drawn on the spot."""

"""Measurements and ideas of ours: nothing of the product imports them."""

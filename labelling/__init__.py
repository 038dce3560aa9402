"""A trained run as a classifier, and its export."""

"""Formulas on tensors: evidence, losses, Gaussians, logistic regression. They know no CLIP and no run."""

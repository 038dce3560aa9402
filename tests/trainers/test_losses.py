"""Losses of templates against loops, and their joint minimum against a search."""

from itertools import combinations

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as examples

from trainers.losses import (
    collapse_weight,
    consistency_loss,
    cosines,
    decoupling_loss,
    distance_at_minimum,
)


def test_cosines_are_those_of_loops():
    """The losses: test_formulas.py."""
    features, anchor = (
        F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)
        for shape in ((4, 5, 7), (5, 7))
    )
    pairs = [(m, n, k) for k in range(5) for m, n in combinations(range(4), 2)]

    def mean(values):
        return pytest.approx(float(sum(values) / len(values)), rel=1e-9)

    found, away = cosines(features, anchor), F.normalize(features - anchor, dim=-1)
    assert found["to_clip"] == mean(
        [features[m, k] @ anchor[k] for k in range(5) for m in range(4)]
    )
    for name, vectors in (("deviations", away), ("between", features)):
        assert found[name] == mean([vectors[m, k] @ vectors[n, k] for m, n, k in pairs])


@examples(max_examples=12)
@given(st.integers(2, 5), st.floats(0.1, 3.0), st.floats(0.0, 1.5), st.integers(0, 99))
def test_decoupling_and_consistency_are_least_where_the_derivation_says(
    templates, decoupling, share, seed
):
    """Found from free unit vectors by LBFGS; consistency up to one and a half times the weight from which the templates collapse."""
    generator = torch.Generator().manual_seed(seed)
    anchor = F.normalize(torch.randn(1, 8, generator=generator, dtype=torch.float64), dim=-1)
    noise = torch.randn(templates, 1, 8, generator=generator, dtype=torch.float64)
    free = (anchor + 0.1 * noise).requires_grad_()
    consistency = share**4 * collapse_weight(templates, decoupling)  # mostly far below it
    exact = {"tolerance_grad": 1e-13, "tolerance_change": 1e-16, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([free], max_iter=3000, **exact)

    def loss():
        optimizer.zero_grad()
        features = F.normalize(free, dim=-1)
        total = decoupling * decoupling_loss(features, anchor)
        total = total + consistency * templates * consistency_loss(features, anchor)
        total.backward()
        return total

    for _ in range(4):
        optimizer.step(loss)
    distances = (F.normalize(free, dim=-1) - anchor).norm(dim=-1)
    expected = distance_at_minimum(templates, decoupling, consistency)
    assert (expected == 0) == (consistency >= collapse_weight(templates, decoupling))
    torch.testing.assert_close(
        distances, torch.full_like(distances, expected), rtol=2e-2, atol=5e-4
    )

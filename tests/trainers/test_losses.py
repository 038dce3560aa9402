"""Losses of templates against loops, and their joint minimum against a search."""

from itertools import combinations

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as examples

from trainers.losses import (
    SHORT,
    collapse_weight,
    consistency_loss,
    cosines,
    decoupling_loss,
    distance_at_minimum,
)


def test_losses_and_cosines_are_those_of_loops():
    features, anchor = (
        F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)
        for shape in ((4, 5, 7), (5, 7))
    )
    away, pairs = (
        features - anchor,
        [(m, n, k) for k in range(5) for m, n in combinations(range(4), 2)],
    )
    smooth = (away.square().sum(dim=-1) + SHORT**2).sqrt()

    def mean(values):
        return pytest.approx(float(sum(values) / len(values)), rel=1e-9)

    losses = decoupling_loss(features, anchor).item(), consistency_loss(features, anchor).item()
    near = [1 - features[m, k] @ anchor[k] for k in range(5) for m in range(4)]
    assert losses[0] == mean(
        [away[m, k] @ away[n, k] / (smooth[m, k] * smooth[n, k]) for m, n, k in pairs]
    )
    assert losses[1] == mean(near) and decoupling_loss(features[:1], anchor) == 0
    found = cosines(features, anchor)
    assert found["deviations"] == mean(
        [F.cosine_similarity(away[m, k], away[n, k], dim=0) for m, n, k in pairs]
    )
    assert found["between"] == mean([features[m, k] @ features[n, k] for m, n, k in pairs])
    assert found["to_clip"] == pytest.approx(1 - losses[1])


@examples(max_examples=12, deadline=None)
@given(st.integers(2, 5), st.floats(0.1, 3.0), st.floats(0.0, 1.5), st.integers(0, 99))
def test_decoupling_and_consistency_are_least_where_the_derivation_says(
    templates, decoupling, share, seed
):
    """Found from free unit vectors by LBFGS; consistency up to one and a half times the weight from which the templates collapse."""
    generator = torch.Generator().manual_seed(seed)
    anchor = F.normalize(torch.randn(1, 8, generator=generator, dtype=torch.float64), dim=-1)
    free = (
        anchor + 0.1 * torch.randn(templates, 1, 8, generator=generator, dtype=torch.float64)
    ).requires_grad_()
    consistency = share**4 * collapse_weight(templates, decoupling)  # mostly far below it
    optimizer = torch.optim.LBFGS(
        [free],
        max_iter=3000,
        tolerance_grad=1e-13,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def loss():
        optimizer.zero_grad()
        features = F.normalize(free, dim=-1)
        total = decoupling * decoupling_loss(
            features, anchor
        ) + consistency * templates * consistency_loss(features, anchor)
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

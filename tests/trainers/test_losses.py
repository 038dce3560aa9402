"""Losses of templates against loops, and their joint minimum against a search."""

import math
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


def test_decoupling_is_the_mean_cosine_of_deviations_over_pairs():
    features, anchor = (
        F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)
        for shape in ((4, 5, 7), (5, 7))
    )
    deviations = features - anchor
    loop = [
        float(deviations[m, k] @ deviations[n, k])
        / math.sqrt(
            (float(deviations[m, k].square().sum()) + SHORT**2)
            * (float(deviations[n, k].square().sum()) + SHORT**2)
        )
        for k in range(5)
        for m, n in combinations(range(4), 2)
    ]
    assert decoupling_loss(features, anchor).item() == pytest.approx(
        sum(loop) / len(loop), rel=1e-12
    )
    assert decoupling_loss(features[:1], anchor) == 0
    plain = [
        float(F.cosine_similarity(deviations[m, k], deviations[n, k], dim=0))
        for k in range(5)
        for m, n in combinations(range(4), 2)
    ]
    found = cosines(features, anchor)
    assert found["deviations"] == pytest.approx(sum(plain) / len(plain), rel=1e-9)
    assert found["between"] == pytest.approx(
        sum(
            float(features[m, k] @ features[n, k])
            for k in range(5)
            for m, n in combinations(range(4), 2)
        )
        / 30
    )
    assert found["to_clip"] == pytest.approx(1 - consistency_loss(features, anchor).item())


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


def test_consistency_is_the_mean_distance_to_the_hand_crafted_prompt():
    features, anchor = (
        F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)
        for shape in ((4, 5, 7), (5, 7))
    )
    loop = [1 - float(features[m, k] @ anchor[k]) for k in range(5) for m in range(4)]
    assert consistency_loss(features, anchor).item() == pytest.approx(
        sum(loop) / len(loop), rel=1e-12
    )
    assert consistency_loss(anchor.expand(4, -1, -1), anchor).abs() < 1e-12

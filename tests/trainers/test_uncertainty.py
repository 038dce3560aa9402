"""Measures of doubt against textbook loops, closed forms and properties."""

import itertools
import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch.nn.functional import cross_entropy, normalize

from results.answers import reliability_points
from trainers.evaluation.figures import effective_number
from trainers.evaluation.uncertainty import (
    TEMPERATURE_BOUNDS,
    adaptive_calibration_error,
    auroc,
    distance_temperatures,
    fit_temperature,
    selective_risk,
    temperature_scaled,
)


@pytest.fixture
def answers():
    torch.manual_seed(0)
    return torch.randn(400, 5).mul(2).softmax(-1), torch.randint(5, (400,))


@pytest.mark.parametrize("images", [400, 399, 31, 7])
def test_bins_of_equally_many_images_are_those_of_the_textbook_loop(answers, images):
    """In the adaptive calibration error, and as the points of a report's reliability diagram."""
    probability, labels = (part[:images] for part in answers)
    confidence, answer = probability.max(dim=1)
    right = answer == labels
    rows = numpy.array(sorted(zip(confidence.tolist(), right.tolist())))
    bins = numpy.array_split(rows, min(15, images))  # the first ones are larger
    points = numpy.stack([inside.mean(axis=0) for inside in bins])
    numpy.testing.assert_allclose(reliability_points(confidence.numpy(), right.numpy()), points)
    gaps = [len(inside) * abs(a - b) / images for inside, (a, b) in zip(bins, points)]
    assert adaptive_calibration_error(probability, labels) == pytest.approx(sum(gaps), rel=1e-6)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=5))
def test_selective_risk_is_the_mean_over_all_orders_of_equal_doubts(rows):
    uncertainty, wrong = (torch.tensor(column) for column in zip(*rows))
    risks = []
    for order in itertools.permutations(range(len(rows))):
        if all(uncertainty[a] <= uncertainty[b] for a, b in zip(order, order[1:])):
            seen = wrong[list(order)].double()
            risks.append(seen.cumsum(0) / torch.arange(1, len(rows) + 1))
    torch.testing.assert_close(selective_risk(uncertainty, wrong), torch.stack(risks).mean(0))


# ---- temperature scaling ----


@given(st.integers(0, 1000), st.floats(0.2, 5))
def test_no_other_temperature_makes_the_labels_likelier(seed, sharpness):
    """The loss is convex in 1 / T, so that comparing with neighbours is enough."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    labels = logits.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
    log_probability = (sharpness * logits).log_softmax(dim=1)
    found = fit_temperature(log_probability, labels)
    for factor in (0.5, 0.99, 0.9999, 1.0001, 1.01, 2):
        other = min(max(factor * found, TEMPERATURE_BOUNDS[0]), TEMPERATURE_BOUNDS[1])
        losses = [cross_entropy(log_probability / t, labels) for t in (found, other)]
        assert losses[0] <= losses[1] + 1e-12


def test_scaling_raises_to_a_power_and_keeps_the_answer(answers):
    probability, _ = answers
    for temperature in (0.3, 1.0, 4.0):
        power = probability.double() ** (1 / temperature)
        scaled = temperature_scaled(probability.log(), temperature)
        expected = power / power.sum(dim=1, keepdim=True)
        torch.testing.assert_close(scaled, expected, rtol=1e-6, atol=1e-9)
        assert torch.equal(scaled.argmax(dim=1), probability.argmax(dim=1))


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=12))
def test_auroc_is_scikit_learns(images):
    doubts, marks = map(torch.tensor, zip(*images))
    found = auroc(doubts.float(), marks)
    if marks.all() or not marks.any():
        assert found is None
    else:
        assert found == pytest.approx(100 * roc_auc_score(marks, doubts))


@pytest.mark.parametrize("base", [3, 9])
def test_distance_temperatures_are_those_of_the_papers_loop(base):
    tuned, tuned_base, plain, plain_base = (
        normalize(torch.randn(*shape), dim=-1)
        for shape in ((2, 4, 6), (2, base, 6), (4, 6), (base, 6))
    )

    def score(text, others):  # the mean distance from the nearest five
        nearest = sorted((text - other).norm().item() for other in others)[:5]
        return sum(nearest) / len(nearest)

    found = distance_temperatures(tuned, tuned_base, plain, plain_base)
    for k in range(4):
        after = sum(score(tuned[m, k], tuned_base[m]) for m in range(2)) / 2
        expected = math.exp(after - score(plain[k], plain_base))
        assert found[k].item() == pytest.approx(expected, rel=1e-5)


def test_a_text_on_a_base_classs_keeps_its_temperature_whatever_is_near_it():
    torch.manual_seed(0)
    tuned, base, plain = (
        normalize(torch.randn(*shape), dim=-1) for shape in ((2, 4, 6), (2, 9, 6), (13, 6))
    )
    base[:, 3] = tuned[:, 1]
    found = distance_temperatures(tuned, base, plain[:4], plain[4:])
    assert found[1] == 1
    assert (found[[0, 2, 3]] != 1).all()
    base[1, 3] = -tuned[1, 1]  # under one template of the two it lies elsewhere
    assert distance_temperatures(tuned, base, plain[:4], plain[4:])[1] != 1


# ---- images that are not independent ----


@pytest.mark.parametrize(
    "right, groups",
    [
        ([1, 1, 0, 1, 0, 0, 1, 1], [0, 0, 0, 1, 1, 2, 2, 3]),
        ([1, 1, 1, 1, 0, 0], [4, 4, 4, 4, 9, 9]),
        ([1, 0, 1, 0, 1, 0], [0, 0, 1, 1, 2, 2]),  # each group half right: worth no more than N
    ],
)
def test_images_in_groups_are_worth_their_number_over_the_design_effect(right, groups):
    """By Rao and Scott's formula, group by group."""
    share, number = sum(right) / len(right), len({*groups})
    squares = 0.0
    for group in {*groups}:
        members = [one for one, its in zip(right, groups) if its == group]
        squares += (sum(members) - share * len(members)) ** 2
    variance = number / (number - 1) * squares / len(right) ** 2
    effect = max(1, variance / (share * (1 - share) / len(right)))
    found = effective_number(numpy.array(right) == 1, numpy.array(groups))
    assert found == pytest.approx(len(right) / effect)


@pytest.mark.parametrize(
    "right, groups, worth",
    [
        ([1, 1, 1], [0, 0, 1], 2),
        ([0, 0], [5, 5], 1),
        ([1, 0, 1], [0] * 3, 1),
        ([1, 0, 1], [0, 1, 2], 3),
    ],
)
def test_where_answers_show_no_design_effect_images_are_worth_their_groups(right, groups, worth):
    assert effective_number(numpy.array(right) == 1, numpy.array(groups)) == worth

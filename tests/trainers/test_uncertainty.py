"""Measures of doubt against textbook loops, closed forms and properties."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import GOLDEN
from trainers.evaluation.uncertainty import (
    TEMPERATURES,
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


@pytest.mark.parametrize("images", [400, 399, 7])
def test_adaptive_calibration_error_is_the_textbook_loop(answers, images):
    probability, labels = (part[:images] for part in answers)
    rows = sorted(
        (row.max().item(), int(row.argmax() == label)) for row, label in zip(probability, labels)
    )
    gap, bins = 0.0, min(15, images)
    sizes = [images // bins + (b < images % bins) for b in range(bins)]
    for size in sizes:
        inside, rows = rows[:size], rows[size:]
        gap += abs(sum(right for _, right in inside) - sum(confidence for confidence, _ in inside))
    assert adaptive_calibration_error(probability, labels) == pytest.approx(gap / images, rel=1e-6)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6))
def test_selective_risk_is_the_mean_over_all_orders_of_equal_doubts(rows):
    uncertainty, wrong = (torch.tensor(column) for column in zip(*rows))
    risks = []
    for order in itertools.permutations(range(len(rows))):
        if all(uncertainty[a] <= uncertainty[b] for a, b in zip(order, order[1:])):
            seen = wrong[list(order)].double()
            risks.append(seen.cumsum(0) / torch.arange(1, len(rows) + 1))
    torch.testing.assert_close(selective_risk(uncertainty, wrong), torch.stack(risks).mean(0))


# ---- temperature scaling ----


@pytest.mark.parametrize("classes, margin, right", GOLDEN["cases"]["temperatures"])
def test_the_temperature_of_equally_certain_answers_has_a_closed_form(classes, margin, right):
    """Every answer leads by the same margin and the share q of them is right: exp(margin / T) = (K − 1) q / (1 − q)."""
    log_probability = torch.zeros(100, classes, dtype=torch.float64)
    log_probability[:, 0] = margin
    labels = torch.tensor([0] * right + [1] * (100 - right))
    expected = margin / math.log((classes - 1) * right / (100 - right))
    found = fit_temperature(log_probability.log_softmax(dim=1), labels)
    assert found == pytest.approx(expected, rel=1e-9)
    scaled = temperature_scaled(log_probability, expected)
    assert scaled[:, 0].tolist() == pytest.approx([right / 100] * 100)  # it says what it is worth


@given(st.integers(0, 1000), st.floats(0.2, 5))
def test_sharper_answers_have_a_temperature_that_undoes_it(seed, sharpness):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    log_probability = logits.log_softmax(dim=1)
    labels = log_probability.exp().multinomial(1, generator=generator)[:, 0]
    temperature = fit_temperature(log_probability, labels)
    sharper = fit_temperature((sharpness * log_probability).log_softmax(dim=1), labels)
    if not {temperature, sharper} & {*TEMPERATURES}:
        assert sharper == pytest.approx(sharpness * temperature, rel=1e-6)
        again = fit_temperature(temperature_scaled(log_probability, temperature).log(), labels)
        assert again == pytest.approx(1, rel=1e-6)


def test_the_ends_of_what_is_looked_through_and_a_probability_of_zero():
    log_probability = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()
    right, wrong = (fit_temperature(log_probability, torch.tensor(of)) for of in ([0, 1], [1, 0]))
    assert (right, wrong) == TEMPERATURES  # all right: the surer, the likelier
    with pytest.raises(ValueError, match="clamp probabilities of zero"):
        fit_temperature(torch.tensor([[1.0, 0.0]]).log(), torch.tensor([0]))


def test_scaling_raises_to_a_power_and_keeps_the_answer(answers):
    probability, _ = answers
    for temperature in (0.3, 1.0, 4.0):
        power = probability.double() ** (1 / temperature)
        scaled = temperature_scaled(probability.log(), temperature)
        expected = power / power.sum(dim=1, keepdim=True)
        torch.testing.assert_close(scaled, expected, rtol=1e-6, atol=1e-9)
        assert torch.equal(scaled.argmax(dim=1), probability.argmax(dim=1))


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=12))
def test_auroc_counts_pairs(images):
    doubtful, others = ([v for v, mark in images if mark is asked] for asked in (True, False))
    doubts, marks = map(torch.tensor, zip(*images))
    found = auroc(doubts.float(), marks)
    if not doubtful or not others:
        assert found is None
    else:
        pairs = [(one > other) + 0.5 * (one == other) for one in doubtful for other in others]
        assert found == pytest.approx(100 * sum(pairs) / len(pairs), rel=1e-5)


@pytest.mark.parametrize("base", [3, 9])
def test_distance_temperatures_are_those_of_the_papers_loop(base):
    torch.manual_seed(base)
    tuned, tuned_base, plain, plain_base = (
        torch.nn.functional.normalize(torch.randn(*shape), dim=-1)
        for shape in ((2, 4, 6), (2, base, 6), (4, 6), (base, 6))
    )

    def score(text, others):  # exp of minus the mean distance from the nearest five
        nearest = sorted((text - other).norm().item() for other in others)[:5]
        return sum(nearest) / len(nearest)

    found = distance_temperatures(tuned, tuned_base, plain, plain_base)
    for k in range(4):
        after = sum(score(tuned[m, k], tuned_base[m]) for m in range(2)) / 2
        confidence = math.exp(-after) / math.exp(-score(plain[k], plain_base))
        assert found[k].item() == pytest.approx(1 / confidence, rel=1e-5)

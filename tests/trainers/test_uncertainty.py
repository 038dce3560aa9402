"""Measures of doubt against textbook loops, closed forms and properties."""
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from trainers.uncertainty import adaptive_calibration_error, brier_score, doubt, doubt_threshold, selective_risk


@pytest.fixture
def answers():
    torch.manual_seed(0)
    return torch.randn(400, 5).mul(2).softmax(-1), torch.randint(5, (400,))


def test_brier_score_by_hand_and_at_its_ends():
    probability = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    assert brier_score(probability, torch.tensor([0, 1])) == pytest.approx((0.09 + 0.04 + 0.01) / 2)
    assert brier_score(probability[1:], torch.tensor([2])) == pytest.approx(2)


@pytest.mark.parametrize("images", [400, 399, 7])
def test_adaptive_calibration_error_is_the_textbook_loop(answers, images):
    probability, labels = (part[:images] for part in answers)
    rows = sorted((row.max().item(), int(row.argmax() == label)) for row, label in zip(probability, labels))
    gap, bins = 0.0, min(15, images)
    sizes = [images // bins + (b < images % bins) for b in range(bins)]
    for size in sizes:
        inside, rows = rows[:size], rows[size:]
        gap += abs(sum(right for _, right in inside) - sum(confidence for confidence, _ in inside))
    assert adaptive_calibration_error(probability, labels) == pytest.approx(gap / images, rel=1e-6)


def test_a_calibrated_classifier_has_no_calibration_error():
    probability = torch.tensor([[0.75, 0.25]]).repeat(4 * 15, 1)
    assert adaptive_calibration_error(probability, torch.tensor([0, 0, 0, 1]).repeat(15)) == pytest.approx(0, abs=1e-7)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6))
def test_selective_risk_is_the_mean_over_all_orders_of_equal_doubts(rows):
    uncertainty, wrong = (torch.tensor(column) for column in zip(*rows))
    risks = []
    for order in itertools.permutations(range(len(rows))):
        if all(uncertainty[a] <= uncertainty[b] for a, b in zip(order, order[1:])):
            seen = wrong[list(order)].double()
            risks.append(seen.cumsum(0) / torch.arange(1, len(rows) + 1))
    torch.testing.assert_close(selective_risk(uncertainty, wrong), torch.stack(risks).mean(0))


def test_doubt_of_the_best_the_worst_and_no_measure():
    wrong = torch.tensor([True] * 25 + [False] * 75)
    best, worst, none = doubt(wrong.float(), wrong), doubt(-wrong.float(), wrong), doubt(torch.zeros(100), wrong)
    assert (best["error_auroc"], worst["error_auroc"], none["error_auroc"]) == pytest.approx((100, 0, 50))
    assert none["aurc"] == pytest.approx(25) and best["aurc"] < 4 < 25 < worst["aurc"]
    assert best["aurc"] == pytest.approx(sum(max(0, n - 75) / n for n in range(1, 101)))


@pytest.mark.parametrize("scale, shift", [(1, 0), (0.01, 0.3), (1000, -500)])
def test_auroc_is_sklearns_whatever_the_scale(answers, scale, shift):
    probability, labels = answers
    wrong = probability.argmax(dim=1) != labels
    uncertainty = -probability.max(dim=1).values.mul(20).round() * scale + shift  # with ties
    assert doubt(uncertainty, wrong)["error_auroc"] == pytest.approx(100 * roc_auc_score(wrong, uncertainty), rel=1e-5)


@pytest.mark.parametrize("value", [True, False])
def test_there_is_no_auroc_where_all_answers_are_alike(value):
    found = doubt(torch.rand(5), torch.full((5,), value))
    assert found["error_auroc"] is None and found["aurc"] == 100 * value


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=20), st.sampled_from([0.0, 0.05, 0.2, 0.5, 0.99]))
def test_the_threshold_answers_as_many_as_the_error_allows(images, max_error):
    """Against all thresholds, tried one by one."""
    uncertainty, wrong = torch.tensor([u / 7 for u, _ in images]), torch.tensor([w for _, w in images])
    possible = []
    for threshold in set(uncertainty.tolist()):
        given = wrong[uncertainty <= threshold].tolist()
        if sum(given) <= max_error * len(given):
            possible.append((threshold, len(given) / len(images), sum(given) / len(given)))
    found = doubt_threshold(uncertainty, wrong, max_error)
    assert found == (pytest.approx(max(possible)) if possible else None)
    assert not possible or (uncertainty <= found[0]).float().mean() == pytest.approx(found[1])  # comparing with it is exact

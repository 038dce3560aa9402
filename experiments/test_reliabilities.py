"""Reliabilities of each template: the fit, and the likelihood by which its prior's strength is
judged, against sums over a grid."""

import math

import pytest
import torch

from experiments import reliabilities
from trainers.maths.evidence import dempster


@pytest.fixture
def votes():
    """Log evidence (2, N, 3) of a template that is right and of one that guesses, and labels."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (60,), generator=generator)
    evidence = torch.randn(2, 60, 3, generator=generator, dtype=torch.float64)
    evidence[0] += 2 * torch.eye(3, dtype=torch.float64)[labels]
    return evidence, labels


def log_joint(votes, level, deviation, strength):
    """Of the labels and of the coordinate of the deviations, by the formula."""
    evidence, labels = votes
    parts = deviation / math.sqrt(2) * torch.tensor([1.0, -1.0], dtype=torch.float64)
    probability = dempster(evidence, (level + parts).exp()).probability
    prior = torch.distributions.Normal(0.0, strength)
    likelihood = probability[torch.arange(len(labels)), labels].log().sum()
    return likelihood.item() + prior.log_prob(torch.tensor(deviation)).item()


@pytest.mark.parametrize("strength", (0.25, 1.0))
def test_the_fit_is_the_greatest_of_a_grid_and_the_likelihood_its_sum(votes, strength):
    weights, likelihood = reliabilities.fitted_each(*votes, strength)
    level = weights.log().mean().item()
    step = 0.01
    grid = [step * place for place in range(-500, 501)]
    values = torch.tensor([log_joint(votes, level, at, strength) for at in grid])
    best = grid[int(values.argmax())]
    found = (weights[0] / weights[1]).log().item() / math.sqrt(2)
    assert found == pytest.approx(best, abs=step)
    assert likelihood == pytest.approx(values.logsumexp(0).item() + math.log(step), abs=0.02)
    assert weights[0] > weights[1]


def test_without_deviations_it_is_one_reliability_for_all(votes):
    evidence, labels = votes
    weights, likelihood = reliabilities.fitted_each(evidence, labels, 0.0)
    assert weights[0] == weights[1]
    assert 0.1 - 1e-9 <= weights[0] <= 1 + 1e-9
    for other in (weights[0] * 0.97, weights[0] * 1.03):
        if 0.1 <= other <= 1:  # the bounds
            log_probability = dempster(evidence, other).log_probability
            assert log_probability.gather(-1, labels[:, None]).sum() < likelihood
    _, nearly = reliabilities.fitted_each(evidence, labels, 1e-3)
    assert nearly == pytest.approx(likelihood, abs=1e-2)


def test_a_line_has_the_measures_of_images_that_nothing_was_fitted_to(votes):
    evidence, labels = votes
    new = evidence.flip(0), labels.flip(0)
    halves = {"base": evidence, "new": new[0]}
    first, *_ = reliabilities.lines_of("task", halves, {"base": labels, "new": new[1]})
    weights, _ = reliabilities.fitted_each(evidence[:, ::2], labels[::2], 0.0)
    answers = dempster(evidence[:, 1::2], weights).probability.argmax(dim=1)
    right = (answers == labels[1::2]).double().mean().item()
    assert first["base"] == pytest.approx(100 * right, abs=1e-3)
    assert first["setting"] == "0"


def test_a_table_of_no_results_is_refused(tmp_path):
    assert reliabilities.main(["--results", str(tmp_path / "none.jsonl"), "--show"]) == 2

"""The laws of evidence, each against a textbook loop, a closed form or a sample."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.evidence import (
    Opinion,
    conflict,
    dempster,
    digamma_of_exp,
    fitted_reliability,
    trusted_cross_entropy,
    usual_reliability,
)


def random_log_evidence(seed, templates, classes, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(templates, 2, classes, generator=generator, dtype=torch.float64) * spread


def textbook_dempster(opinions):
    """Pairwise, with the table of all products of masses, as the rule is written; opinions are (belief (K,), vacuity).

    1 − C is the sum of the products without conflict: subtracting C from 1 loses all digits where
    opinions conflict.
    """
    belief, vacuity = opinions[0]
    for other, other_vacuity in opinions[1:]:
        masses, others = torch.cat([belief, vacuity[None]]), torch.cat([other, other_vacuity[None]])
        table = (
            masses[:, None] * others[None, :]
        )  # (K + 1, K + 1), the last row and column hold the vacuities
        conflicting = torch.ones_like(table, dtype=torch.bool).fill_diagonal_(False)
        conflicting[-1] = conflicting[:, -1] = False
        rest = table[~conflicting].sum()
        assert abs(rest - (1 - table[conflicting].sum())) < 1e-9
        belief, vacuity = (
            (belief * other + belief * other_vacuity + other * vacuity) / rest,
            vacuity * other_vacuity / rest,
        )
    return belief, vacuity


shapes = {
    "seed": st.integers(0, 10**6),
    "templates": st.integers(1, 8),
    "classes": st.integers(2, 60),
    "spread": st.sampled_from([0.5, 2.0, 4.0]),
}


@settings(max_examples=60, deadline=None)
@given(**shapes)
def test_the_closed_form_is_the_pairwise_rule(seed, templates, classes, spread):
    check_against_the_textbook(random_log_evidence(seed, templates, classes, spread))


@pytest.mark.parametrize("templates, classes", [(8, 1000), (2, 1000), (4, 397)])
def test_the_closed_form_is_the_pairwise_rule_for_many_classes(templates, classes):
    check_against_the_textbook(random_log_evidence(1, templates, classes))


def check_against_the_textbook(logs):
    fused = dempster(logs)
    for image in range(logs.shape[1]):
        parts = []
        for log in logs[:, image]:
            evidence = log.exp()
            strength = (evidence + 1).sum()
            parts.append((evidence / strength, len(evidence) / strength))
        belief, vacuity = textbook_dempster(parts)
        torch.testing.assert_close(fused.belief[image], belief, rtol=1e-12, atol=0)
        torch.testing.assert_close(fused.vacuity[image], vacuity, rtol=1e-12, atol=0)


@settings(max_examples=40, deadline=None)
@given(**shapes)
def test_the_order_of_the_templates_does_not_matter(seed, templates, classes, spread):
    logs = random_log_evidence(seed, templates, classes, spread)
    shuffled = logs[torch.randperm(templates, generator=torch.Generator().manual_seed(seed))]
    torch.testing.assert_close(
        dempster(logs).log_evidence, dempster(shuffled).log_evidence, rtol=1e-12, atol=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(**shapes)
def test_fusing_a_vacuous_opinion_changes_nothing(seed, templates, classes, spread):
    logs = random_log_evidence(seed, templates, classes, spread)
    vacuous = torch.full_like(logs[:1], -400.0)
    torch.testing.assert_close(
        dempster(torch.cat([logs, vacuous])).log_evidence,
        dempster(logs).log_evidence,
        rtol=1e-12,
        atol=1e-12,
    )


def test_one_opinion_fused_with_nothing_is_itself():
    logs = random_log_evidence(0, 1, 7)
    torch.testing.assert_close(dempster(logs).log_evidence, logs[0], rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(**shapes)
def test_a_witness_who_is_heard_twice_counts_as_once_under_half_the_reliability(
    seed, templates, classes, spread
):
    logs = random_log_evidence(seed, templates, classes, spread)
    twice = dempster(torch.cat([logs, logs]), 0.5)
    torch.testing.assert_close(
        twice.log_evidence, dempster(logs).log_evidence, rtol=1e-9, atol=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(reliability=st.floats(0.05, 1.0), **shapes)
def test_reliability_raises_each_factor_to_its_power_and_keeps_the_order_of_classes(
    reliability, seed, templates, classes, spread
):
    logs = random_log_evidence(seed, templates, classes, spread)
    fused = dempster(logs, reliability)
    factors = (1 + logs.exp() / classes) ** reliability  # (M, 2, K)
    torch.testing.assert_close(
        1 + fused.log_evidence.exp() / classes, factors.prod(dim=0), rtol=1e-9, atol=0
    )
    assert torch.equal(
        fused.log_evidence.argsort(dim=-1), dempster(logs).log_evidence.argsort(dim=-1)
    )
    assert (fused.vacuity >= dempster(logs).vacuity - 1e-12).all()


def test_reliability_is_fitted_to_the_least_negative_log_likelihood():
    """Four equal opinions, right in 70 % of the cases and 95 % sure: the optimum comes from a fine grid."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (400,), generator=generator)
    said = torch.where(torch.rand(400, generator=generator) < 0.7, labels, (labels + 1) % 5)
    logs = (5.0 * torch.nn.functional.one_hot(said, 5).double() - 1.0).expand(4, -1, -1)

    def loss(reliability):
        return -dempster(logs, reliability).log_probability.gather(1, labels[:, None]).mean().item()

    best = min((step / 1000 for step in range(50, 1001)), key=loss)
    assert fitted_reliability(logs, labels) == pytest.approx(best, abs=2e-3)
    assert 0.05 < best < 0.5
    assert fitted_reliability(logs, said) == 1.0  # always right: they can't be believed too much


def test_the_usual_reliability_is_of_witnesses_with_half_their_variance_in_common():
    torch.manual_seed(0)
    for templates in (1, 2, 4, 8):
        common, own = torch.randn(200_000, 1), torch.randn(200_000, templates)
        mean = ((common + own) / 2**0.5).mean(dim=1)
        assert templates * usual_reliability(templates) == pytest.approx(
            1 / mean.var().item(), rel=0.02
        )


@settings(max_examples=40, deadline=None)
@given(**shapes)
def test_beliefs_and_vacuity_sum_to_one_and_so_do_probabilities(seed, templates, classes, spread):
    logs = random_log_evidence(seed, templates, classes, spread)
    for opinion in (Opinion(logs), dempster(logs)):
        one = torch.ones_like(opinion.vacuity)
        torch.testing.assert_close(
            opinion.belief.sum(-1) + opinion.vacuity, one, rtol=1e-12, atol=0
        )
        torch.testing.assert_close(opinion.probability.sum(-1), one, rtol=1e-12, atol=0)
        torch.testing.assert_close(
            opinion.log_probability.exp(), opinion.probability, rtol=1e-12, atol=0
        )


def test_agreeing_opinions_gain_certainty():
    agree = torch.tensor([[2.0, -9.0, -9.0], [2.0, -9.0, -9.0]], dtype=torch.float64)
    assert dempster(agree).vacuity < Opinion(agree).vacuity.min()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    templates=st.integers(1, 4),
    classes=st.integers(1, 5),
    spread=st.sampled_from([0.1, 2.0, 30.0]),
)
def test_conflict_is_the_joint_mass_on_different_classes(seed, templates, classes, spread):
    logs = random_log_evidence(seed, templates, classes, spread)  # (M, 2, K)
    opinions = Opinion(logs)
    mass = torch.cat(
        [opinions.belief, opinions.vacuity[..., None]], dim=-1
    )  # (M, 2, K + 1): the last is "any class"
    expected = torch.zeros(logs.shape[1], dtype=torch.float64)
    for choice in itertools.product(range(classes + 1), repeat=templates):
        if len(set(choice) - {classes}) > 1:
            expected += math.prod(mass[m, :, c] for m, c in enumerate(choice))
    torch.testing.assert_close(conflict(logs, dempster(logs)), expected, rtol=1e-9, atol=1e-12)


def test_trusted_cross_entropy_is_the_expectation_under_the_dirichlet():
    torch.manual_seed(0)
    logs = torch.tensor([[0.5, 1.5, -1.0, 0.0]], dtype=torch.float64)
    sample = torch.distributions.Dirichlet(logs.exp()[0] + 1).sample((400_000,))
    for label in range(4):
        losses = -sample[:, label].log()
        expected, error = losses.mean(), losses.std() / len(losses) ** 0.5
        ours = trusted_cross_entropy(Opinion(logs), torch.tensor([label]))
        assert abs(ours.item() - expected.item()) < 5 * error.item()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    reliability=st.sampled_from([0.3, 1.0]),
    spread=st.sampled_from([1, 6]),
)
def test_the_loss_of_fused_opinions_has_the_numerical_gradient(seed, reliability, spread):
    logs = random_log_evidence(seed, 3, 5, spread).requires_grad_()
    labels = torch.tensor([seed % 5, 1])
    assert torch.autograd.gradcheck(
        lambda x: trusted_cross_entropy(dempster(x, reliability), labels),
        logs,
        eps=1e-6,
        atol=1e-6,
        rtol=1e-4,
    )


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_digamma_from_the_logarithm(dtype, tolerance):
    log_x = torch.linspace(0, 20, 400, dtype=torch.float64)
    torch.testing.assert_close(
        digamma_of_exp(log_x.to(dtype)).double(),
        torch.digamma(log_x.exp()),
        rtol=tolerance,
        atol=tolerance,
    )


@pytest.mark.parametrize("reliability", [0.05, 1.0])
@pytest.mark.parametrize(
    "top, others", [(200.0, -200.0), (-200.0, 200.0), (200.0, 200.0), (-200.0, -200.0), (0.0, 0.0)]
)
def test_nothing_overflows_for_extreme_evidence(reliability, top, others):
    logits = torch.full((4, 2, 10), others)
    logits[:, :, 3] = top
    logits.requires_grad_()
    opinion = dempster(logits, reliability)
    losses = trusted_cross_entropy(opinion, torch.tensor([3, 4]))
    losses.sum().backward()
    for value in (losses, logits.grad, opinion.belief, opinion.vacuity, opinion.probability):
        assert torch.isfinite(value).all()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([1.0, 10.0, 60.0]),
    reliability=st.sampled_from([0.3, 1.0]),
)
def test_fp32_agrees_with_float64(seed, spread, reliability):
    logs = random_log_evidence(seed, 4, 20, spread)
    labels = torch.tensor([3, 7])
    exact = trusted_cross_entropy(dempster(logs, reliability), labels)
    torch.testing.assert_close(
        trusted_cross_entropy(dempster(logs.float(), reliability), labels).double(),
        exact,
        rtol=1e-4,
        atol=1e-4,
    )


def test_vacuity_is_one_without_evidence():
    opinion = Opinion(torch.full((3,), -math.inf))
    assert opinion.vacuity == 1 and torch.equal(opinion.belief, torch.zeros(3))

"""The laws of evidence, each against a textbook loop, a closed form or a sample."""
import itertools
import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.evidence import (
    EVIDENCE_FUNCTIONS,
    Opinion,
    conflict,
    cumulative,
    dempster,
    digamma_of_exp,
    kl_to_uniform,
    log_evidence,
    trusted_cross_entropy,
)


def random_log_evidence(seed, templates, classes, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(templates, 2, classes, generator=generator, dtype=torch.float64) * spread


def textbook_dempster(opinions):
    """Pairwise, with the table of all products of masses, as the rule is written; opinions are (belief (K,), vacuity).

    1 − C is summed up from the products that do not contradict each other: subtracting C from 1 loses all digits where
    opinions clash.
    """
    belief, vacuity = opinions[0]
    for other, other_vacuity in opinions[1:]:
        masses, others = torch.cat([belief, vacuity[None]]), torch.cat([other, other_vacuity[None]])
        table = masses[:, None] * others[None, :]  # (K + 1, K + 1), the last row and column hold the vacuities
        conflicting = torch.ones_like(table, dtype=torch.bool).fill_diagonal_(False)
        conflicting[-1] = conflicting[:, -1] = False
        rest = table[~conflicting].sum()
        assert abs(rest - (1 - table[conflicting].sum())) < 1e-9
        belief, vacuity = ((belief * other + belief * other_vacuity + other * vacuity) / rest, vacuity * other_vacuity / rest)
    return belief, vacuity


shapes = {"seed": st.integers(0, 10 ** 6), "templates": st.integers(1, 8), "classes": st.integers(2, 60),
          "spread": st.sampled_from([0.5, 2.0, 4.0])}


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
    torch.testing.assert_close(dempster(logs).log_evidence, dempster(shuffled).log_evidence, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(**shapes)
def test_fusing_a_vacuous_opinion_changes_nothing(seed, templates, classes, spread):
    logs = random_log_evidence(seed, templates, classes, spread)
    vacuous = torch.full_like(logs[:1], -400.0)
    torch.testing.assert_close(dempster(torch.cat([logs, vacuous])).log_evidence, dempster(logs).log_evidence,
                               rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", [dempster, cumulative])
def test_one_opinion_fused_with_nothing_is_itself(rule):
    logs = random_log_evidence(0, 1, 7)
    torch.testing.assert_close(rule(logs).log_evidence, logs[0], rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(**shapes)
def test_cumulative_fusion_is_the_rule_for_belief_and_vacuity(seed, templates, classes, spread):
    logs = random_log_evidence(seed, templates, classes, spread)
    opinions = Opinion(logs)
    belief, vacuity = opinions.belief[0], opinions.vacuity[0]
    for other, doubt in zip(opinions.belief[1:], opinions.vacuity[1:]):  # Jøsang 2016, §12.3
        whole = vacuity + doubt - vacuity * doubt
        belief, vacuity = (belief * doubt[:, None] + other * vacuity[:, None]) / whole[:, None], vacuity * doubt / whole
    torch.testing.assert_close(cumulative(logs).belief, belief, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(cumulative(logs).vacuity, vacuity, rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(**shapes)
def test_dempsters_rule_finds_no_less_evidence_than_there_is_taken_together(seed, templates, classes, spread):
    logs = random_log_evidence(seed, templates, classes, spread)
    assert (dempster(logs).log_evidence >= cumulative(logs).log_evidence - 1e-12).all()


@settings(max_examples=40, deadline=None)
@given(**shapes)
def test_beliefs_and_vacuity_sum_to_one_and_so_do_probabilities(seed, templates, classes, spread):
    logs = random_log_evidence(seed, templates, classes, spread)
    for opinion in (Opinion(logs), dempster(logs)):
        one = torch.ones_like(opinion.vacuity)
        torch.testing.assert_close(opinion.belief.sum(-1) + opinion.vacuity, one, rtol=1e-12, atol=0)
        torch.testing.assert_close(opinion.probability.sum(-1), one, rtol=1e-12, atol=0)
        torch.testing.assert_close(opinion.log_probability.exp(), opinion.probability, rtol=1e-12, atol=0)


def test_agreeing_opinions_gain_certainty():
    agree = torch.tensor([[2.0, -9.0, -9.0], [2.0, -9.0, -9.0]], dtype=torch.float64)
    assert dempster(agree).vacuity < Opinion(agree).vacuity.min()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2 ** 31 - 1), templates=st.integers(1, 4), classes=st.integers(1, 5), spread=st.sampled_from([0.1, 2.0, 30.0]))
def test_conflict_is_the_joint_mass_on_different_classes(seed, templates, classes, spread):
    logs = random_log_evidence(seed, templates, classes, spread)  # (M, 2, K)
    opinions = Opinion(logs)
    mass = torch.cat([opinions.belief, opinions.vacuity[..., None]], dim=-1)  # (M, 2, K + 1): the last is "any class"
    expected = torch.zeros(logs.shape[1], dtype=torch.float64)
    for choice in itertools.product(range(classes + 1), repeat=templates):
        if len(set(choice) - {classes}) > 1:
            expected += math.prod(mass[m, :, c] for m, c in enumerate(choice))
    torch.testing.assert_close(conflict(logs, dempster(logs)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("function, reference", [
    ("exp", lambda x: x.exp()), ("softplus", lambda x: torch.log1p(x.exp())), ("relu", lambda x: x.clamp(min=0))])
def test_evidence_functions(function, reference):
    logits = torch.linspace(-6, 6, 25, dtype=torch.float64)
    evidence = log_evidence(logits, 0.5, function).exp()
    torch.testing.assert_close(evidence, reference(logits - 0.5), rtol=1e-9, atol=1e-29)


@pytest.mark.parametrize("function", EVIDENCE_FUNCTIONS)
@pytest.mark.parametrize("level", [-150.0, 0.3, 150.0])
def test_what_all_classes_have_in_common_is_no_centred_evidence(function, level):
    logits = torch.randn(3, 2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = log_evidence(logits + level, 0.5, function, centred=True)
    torch.testing.assert_close(found, log_evidence(logits - logits.mean(-1, keepdim=True), 0.5, function), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(log_evidence(logits + level, 0.5, function), log_evidence(logits, 0.5, function))


def test_an_unknown_evidence_function_is_refused():
    with pytest.raises(ValueError, match="'tanh', it takes one of exp, softplus, relu"):
        log_evidence(torch.zeros(2), 0.0, "tanh")


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
@given(seed=st.integers(0, 10 ** 6), function=st.sampled_from([trusted_cross_entropy, kl_to_uniform]), spread=st.sampled_from([1, 6]))
def test_losses_of_fused_opinions_have_the_numerical_gradient(seed, function, spread):
    logs = random_log_evidence(seed, 3, 5, spread).requires_grad_()
    labels = torch.tensor([seed % 5, 1])
    assert torch.autograd.gradcheck(lambda x: function(dempster(x), labels), logs, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_kl_is_zero_for_the_uniform_dirichlet_and_for_evidence_of_the_true_class_only():
    vacuous = torch.full((1, 6), -400.0, dtype=torch.float64)
    assert kl_to_uniform(Opinion(vacuous), torch.tensor([2])).abs() < 1e-12
    right = vacuous.clone()
    right[0, 2] = 5.0
    assert kl_to_uniform(Opinion(right), torch.tensor([2])).abs() < 1e-12
    assert kl_to_uniform(Opinion(right), torch.tensor([3])) > 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10 ** 6), classes=st.integers(2, 50), spread=st.sampled_from([0.5, 1.0, 2.0]))
def test_kl_is_torchs_own(seed, classes, spread):
    logs = random_log_evidence(seed, 1, classes, spread)[0]
    labels = torch.tensor([0, classes - 1])
    alpha = logs.exp() + 1
    alpha[0, 0] = alpha[1, classes - 1] = 1.0
    expected = torch.distributions.kl_divergence(torch.distributions.Dirichlet(alpha),
                                                 torch.distributions.Dirichlet(torch.ones_like(alpha)))
    torch.testing.assert_close(kl_to_uniform(Opinion(logs), labels), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("log_evidence_of_others", [1.0, 5.0, 10.0, 30.0, 150.0])
def test_kl_of_strong_evidence_is_the_high_precision_value(log_evidence_of_others):
    log = torch.tensor([[2.0, log_evidence_of_others, -1.0, log_evidence_of_others]], dtype=torch.float64)
    with mpmath.workdps(120):
        alpha = [mpmath.mpf(1)] + [1 + mpmath.exp(value) for value in log[0, 1:].tolist()]
        strength = sum(alpha)
        expected = mpmath.loggamma(strength) - mpmath.loggamma(4) - sum(mpmath.loggamma(a) for a in alpha) + sum(
            (a - 1) * (mpmath.digamma(a) - mpmath.digamma(strength)) for a in alpha)
    assert kl_to_uniform(Opinion(log), torch.tensor([0])).item() == pytest.approx(float(expected), rel=1e-10)
    assert kl_to_uniform(Opinion(log.float()), torch.tensor([0])).item() == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_digamma_from_the_logarithm(dtype, tolerance):
    log_x = torch.linspace(0, 20, 400, dtype=torch.float64)
    torch.testing.assert_close(digamma_of_exp(log_x.to(dtype)).double(), torch.digamma(log_x.exp()), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("function", EVIDENCE_FUNCTIONS)
@pytest.mark.parametrize("loss", [trusted_cross_entropy, kl_to_uniform])
@pytest.mark.parametrize("top, others", [(200.0, -200.0), (-200.0, 200.0), (200.0, 200.0), (-200.0, -200.0), (0.0, 0.0)])
def test_nothing_overflows_for_extreme_logits(function, loss, top, others):
    logits = torch.full((4, 2, 10), others)
    logits[:, :, 3] = top
    logits.requires_grad_()
    opinion = dempster(log_evidence(logits, 0.0, function))
    losses = loss(opinion, torch.tensor([3, 4]))
    losses.sum().backward()
    for value in (losses, logits.grad, opinion.belief, opinion.vacuity, opinion.probability):
        assert torch.isfinite(value).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10 ** 6), spread=st.sampled_from([1.0, 10.0, 60.0]), function=st.sampled_from([trusted_cross_entropy, kl_to_uniform]))
def test_fp32_agrees_with_float64(seed, spread, function):
    logs = random_log_evidence(seed, 4, 20, spread)
    labels = torch.tensor([3, 7])
    exact = function(dempster(logs), labels)
    torch.testing.assert_close(function(dempster(logs.float()), labels).double(), exact, rtol=1e-4, atol=1e-4)


def test_half_precision_logits_become_fp32_evidence():
    assert log_evidence(torch.zeros(2, dtype=torch.float16), 0.0, "exp").dtype == torch.float32


def test_vacuity_is_one_without_evidence():
    opinion = Opinion(torch.full((3,), -math.inf))
    assert opinion.vacuity == 1 and torch.equal(opinion.belief, torch.zeros(3))

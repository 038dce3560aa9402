"""The laws of evidence, each against a textbook loop, a closed form or a sample."""

import itertools
import math

import mpmath
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.distributions import Dirichlet, kl_divergence

from trainers.maths.evidence import (
    Opinion,
    conflict,
    dempster,
    evidential_loss,
    fitted_factor,
    log_softplus,
    misleading_evidence,
    trusted_cross_entropy,
)


def random_log_evidence(seed, templates, classes, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(templates, 2, classes, generator=generator, dtype=torch.float64) * spread


def textbook_dempster(opinions):
    """Pairwise, as the rule is written; opinions are (belief (K,), vacuity).

    1 − C is the sum of the products without conflict: subtracting C from 1 loses all digits where
    opinions conflict.
    """
    belief, vacuity = opinions[0]
    for other, other_vacuity in opinions[1:]:
        agreed = belief * other + belief * other_vacuity + other * vacuity
        open_to_all = vacuity * other_vacuity
        rest = agreed.sum() + open_to_all
        belief = agreed / rest
        vacuity = open_to_all / rest
    return belief, vacuity


shapes = {
    "seed": st.integers(0, 10**6),
    "templates": st.integers(1, 8),
    "classes": st.integers(2, 60),
    "spread": st.sampled_from([0.5, 2.0, 4.0]),
}


@given(some_abstain=st.booleans(), **shapes)
@example(False, 1, 8, 1000, 3.0)
@example(False, 1, 4, 397, 3.0)
def test_the_closed_form_is_the_pairwise_rule(some_abstain, seed, templates, classes, spread):
    """Whatever the order of the templates; one opinion is itself; also of witnesses of reliability
    one beside any that have no evidence."""
    logs = random_log_evidence(seed, templates, classes, spread)
    reliability = 1.0
    if some_abstain:
        reliability = torch.rand(templates, generator=torch.Generator().manual_seed(seed))
        reliability[seed % templates :: 2] = 1.0
        logs = torch.where(reliability[:, None, None] == 1, logs, -math.inf)
    fused = dempster(logs, reliability)
    for image in range(2):
        parts = []
        for log in logs[:, image]:
            evidence = log.exp()
            strength = (evidence + 1).sum()
            parts.append((evidence / strength, len(evidence) / strength))
        belief, vacuity = textbook_dempster(parts)
        torch.testing.assert_close(fused.belief[image], belief, rtol=1e-12, atol=0)
        torch.testing.assert_close(fused.vacuity[image], vacuity, rtol=1e-12, atol=0)


TINY = [-1000.0, -700.0, -200.0, -100.0, -80.0, -40.0, -37.0, -36.0, -30.0, -17.0, -10.0]


@pytest.mark.parametrize("kind, digits", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("reliability", [1.0, (0.3, 0.05, 0.9)], ids=["common", "each"])
def test_fused_evidence_that_is_far_below_the_precision_of_one_is_exact_and_so_is_its_gradient(
    kind, digits, reliability
):
    """K (Π_m (1 + e^m / K)^ω_m − 1) with 600 digits; three witnesses who have a little, less, and next
    to none. Its derivative by log e^m is K Π · ω_m (e^m / K) / (1 + e^m / K)."""
    logs = torch.tensor([TINY, [x - 2 for x in TINY], [x - 50 for x in TINY]], dtype=kind)
    logs.requires_grad_()
    fused = dempster(logs, torch.tensor(reliability, dtype=kind)).log_evidence
    fused.sum().backward()
    weights = torch.tensor(reliability, dtype=kind).expand(3).tolist()
    classes = len(TINY)
    with mpmath.workdps(600):
        for k, column in enumerate(logs.detach().T.tolist()):
            parts = [mpmath.exp(x) / classes for x in column]
            product = mpmath.fprod((1 + part) ** ω for part, ω in zip(parts, weights))
            expected = float(mpmath.log(classes * (product - 1)))
            assert fused[k].item() == pytest.approx(expected, rel=digits)
            slopes = [
                float(product * ω * part / (1 + part) / (product - 1))
                for part, ω in zip(parts, weights)
            ]
            assert logs.grad[:, k].tolist() == pytest.approx(slopes, rel=1e3 * digits, abs=1e-12)


@given(reliability=st.floats(0.05, 1.0), is_common=st.booleans(), **shapes)
def test_reliability_raises_each_factor_to_its_power(
    reliability, is_common, seed, templates, classes, spread
):
    """One for all, which keeps the order of the classes, or one for each witness: under 1 / M what
    is heard M times counts once."""
    logs = random_log_evidence(seed, templates, classes, spread)
    each = reliability * torch.linspace(1, 1 if is_common else 0.1, templates, dtype=logs.dtype)
    fused = dempster(logs, reliability if is_common else each)
    factors = (1 + logs.exp() / classes) ** each[:, None, None]  # (M, 2, K)
    torch.testing.assert_close(
        1 + fused.log_evidence.exp() / classes, factors.prod(dim=0), rtol=1e-9, atol=0
    )
    assert (fused.vacuity >= dempster(logs).vacuity - 1e-12).all()
    if is_common:
        order = dempster(logs).log_evidence.argsort(dim=-1)
        assert torch.equal(fused.log_evidence.argsort(dim=-1), order)


@pytest.mark.parametrize("usual", [[1 / 4] * 4, [1 / 8] * 4 + [1.0]])
def test_reliability_is_fitted_to_the_least_negative_log_likelihood(usual):
    """Four equal opinions, alone and with one of another kind, right in 80 % of the cases and surer
    than that: the optimum comes from a finer grid."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (400,), generator=generator)
    said = torch.where(torch.rand(400, generator=generator) < 0.8, labels, (labels + 1) % 5)
    logs = (5.0 * torch.nn.functional.one_hot(said, 5).double() - 1.0).expand(len(usual), -1, -1)
    weights = torch.tensor(usual)

    def loss(factor):
        fused = dempster(logs, factor * weights)
        return -fused.log_probability.gather(1, labels[:, None]).mean().item()

    best = min((step / 1000 for step in range(200, 2001)), key=loss)
    assert fitted_factor(logs, labels, usual) == pytest.approx(best, abs=0.02)
    assert 0.25 < best < 1
    # always right: as sure as it may be
    assert fitted_factor(logs, said, usual) == 2


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


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.sampled_from([0.1, 30.0]))
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
    torch.testing.assert_close(conflict(logs), expected, rtol=1e-9, atol=1e-12)


def test_trusted_cross_entropy_is_the_expectation_under_the_dirichlet():
    torch.manual_seed(0)
    logs = torch.tensor([[0.5, 1.5, -1.0, 0.0]], dtype=torch.float64)
    sample = torch.distributions.Dirichlet(logs.exp()[0] + 1).sample((400_000,))
    for label in range(4):
        losses = -sample[:, label].log()
        expected, error = losses.mean(), losses.std() / len(losses) ** 0.5
        ours = trusted_cross_entropy(Opinion(logs), torch.tensor([label]))
        assert abs(ours.item() - expected.item()) < 5 * error.item()


@given(**shapes)
def test_the_evidential_loss_is_the_mean_of_the_trusted_and_of_the_shares_cross_entropy(
    seed, templates, classes, spread
):
    logs = random_log_evidence(seed, 1, classes, spread)[0]  # (2, K)
    labels = [seed % classes, classes - 1]
    for log, label, loss in zip(logs, labels, evidential_loss(Opinion(logs), torch.tensor(labels))):
        alpha, evidence = log.exp() + 1, log.exp()
        trusted = torch.digamma(alpha.sum()) - torch.digamma(alpha[label])
        share = evidence[label] / evidence.sum()
        assert loss.item() == pytest.approx((trusted - share.log()).item() / 2, rel=1e-9)


def pull(loss, classes, probability, level):
    """Minus the derivative of a loss by the logit of the right class that M = 4 templates alike
    share, over their votes and the fused opinion; by the number of terms.

    ``probability``: e_y / Σ_k e_k, of which the other classes share the rest alike; ``level``: the
    log of the mean of e_k.
    """
    shares = torch.full((classes,), (1 - probability) / (classes - 1), dtype=torch.float64)
    shares[0] = probability
    right = torch.zeros((), dtype=torch.float64, requires_grad=True)
    logs = shares.log() + level + math.log(classes) + right * (torch.arange(classes) == 0)
    votes, label = logs.expand(4, -1), torch.tensor(0)
    fused = dempster(votes, 1 / 4)
    total = loss(Opinion(votes), label.expand(4)).sum() + loss(fused, label)
    return -torch.autograd.grad(total, right)[0].item() / 5


def test_the_right_classs_pull_is_at_least_half_of_cross_entropys_at_every_level():
    """That of cross-entropy is 1 − p. The trusted cross-entropy's alone vanishes with the evidence."""
    probabilities = (1e-4, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9)
    cases = [*itertools.product((2, 10, 100, 1000), probabilities, range(-4, 9, 3))]

    def least_share(loss):
        return min(pull(loss, *case) / (1 - case[1]) for case in cases)

    assert 0.5 - 1e-9 < least_share(evidential_loss) < 0.501
    assert least_share(trusted_cross_entropy) < 1e-3


@pytest.mark.parametrize("reliability", [0.05, 1.0])
@pytest.mark.parametrize(
    "top, others", [(200.0, -200.0), (-200.0, 200.0), (200.0, 200.0), (-200.0, -200.0), (0.0, 0.0)]
)
def test_nothing_overflows_for_extreme_evidence(reliability, top, others):
    logits = torch.full((4, 2, 10), others)
    logits[:, :, 3] = top
    logits.requires_grad_()
    opinion = dempster(logits, reliability)
    labels = torch.tensor([3, 4])
    losses = evidential_loss(opinion, labels) + misleading_evidence(opinion, labels)
    losses.sum().backward()
    for value in (losses, logits.grad, opinion.belief, opinion.vacuity, opinion.probability):
        assert torch.isfinite(value).all()


@pytest.mark.parametrize("spread", [1.0, 10.0, 60.0])
@pytest.mark.parametrize("reliability", [0.3, 1.0])
def test_fp32_agrees_with_float64(spread, reliability):
    logs = random_log_evidence(0, 4, 20, spread)
    labels = torch.tensor([3, 7])
    exact = evidential_loss(dempster(logs, reliability), labels)
    torch.testing.assert_close(
        evidential_loss(dempster(logs.float(), reliability), labels).double(),
        exact,
        rtol=1e-4,
        atol=1e-4,
    )


@given(st.integers(0, 10**6), st.integers(2, 60))
def test_misleading_evidence_is_the_divergence_of_the_wrong_classes_dirichlet_from_the_uniform_one(
    seed, classes
):
    evidence = random_log_evidence(seed, 3, classes)
    labels = torch.randint(classes, evidence.shape[:-1])
    alpha = 1 + evidence.exp()
    alpha[torch.nn.functional.one_hot(labels, classes).bool()] = 1
    expected = kl_divergence(Dirichlet(alpha), Dirichlet(torch.ones_like(alpha)))
    found = misleading_evidence(Opinion(evidence), labels)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@given(st.floats(-300, 300) | st.floats(-30, 0))
@example(-26.0)
@example(-20.0)
@example(-10.0)
@example(-3.1)
def test_the_log_of_a_softplus_is_exact_and_has_its_derivative(value):
    x = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    with mpmath.workdps(60):
        softplus = mpmath.log1p(mpmath.exp(value))
        expected = float(mpmath.log(softplus))
        derivative = float(1 / (1 + mpmath.exp(-value)) / softplus)
    found = log_softplus(x)
    found.backward()
    assert found.item() == pytest.approx(expected, rel=1e-14, abs=1e-14)
    assert x.grad.item() == pytest.approx(derivative, rel=1e-9)

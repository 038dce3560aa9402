"""Trainings that end where another method's does, PromptSRC's mean over epochs, and ProGrad's
projection."""

import math

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as examples

from tests.conftest import BASE, GOLDEN
from tests.reference import unit
from tests.runs import words_of
from tests.trainers.formulas.templates import similarity
from trainers.cdc import SHORT, collapse_weight, cosines, decoupling_loss
from trainers.data.loader import Pairs
from trainers.engine.checkpoint import MODEL_NAME
from trainers.prograd import project
from trainers.promptsrc import PromptSRCMethod, gaussian_weights


@pytest.mark.parametrize("name, settings, of, its", GOLDEN["methods"]["cases"])
def test_it_trains_to_the_answers_of_the_method_that_it_is_a_case_of(
    run, just_trained, name, settings, of, its
):
    """From the same seed on: it draws the same numbers in the same order."""
    expected, _ = just_trained(of, *words_of(of, its))
    found, _ = just_trained(name, *words_of(name, settings))
    images, _ = next(iter(Pairs(found.test_loader)))
    untrained = run(of, *words_of(of, its), flags=("--no-train",))[0]
    with torch.no_grad():
        ours, theirs, before = (each.model(images).logits for each in (found, expected, untrained))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    assert (theirs - before).abs().max() > 0.1  # training moved something


def test_a_general_gradient_of_nothing_takes_nothing_away():
    """Any other: test_formulas.py."""
    task = torch.randn(3, 5)
    assert torch.equal(project(task, 0 * task, 0.8), task)


@pytest.mark.parametrize("epochs, mean, std", [(20, 15, 1), (20, 6, 10)])
def test_promptsrcs_weights_are_a_gaussians_values_that_sum_to_one(epochs, mean, std):
    density = [math.exp(-0.5 * ((epoch - mean) / std) ** 2) for epoch in range(1, epochs + 1)]
    expected = [value / sum(density) for value in density]
    assert gaussian_weights(epochs, mean, std).tolist() == pytest.approx(expected, rel=1e-9)


def test_promptsrcs_last_epoch_is_taken_where_all_weights_underflow():
    assert gaussian_weights(3, 1000, 1).tolist() == pytest.approx([0, 0, 1])


@pytest.mark.parametrize("name", ["PromptSRC", "DePTPromptSRC"])
def test_the_final_prompts_are_the_weighted_mean_over_epochs(run, monkeypatch, name):
    """Of all that is learned, the head's parameters included."""
    seen, end_epoch = [], PromptSRCMethod.end_epoch

    def noted(self, *epochs):
        seen.append({key: value.clone() for key, value in self.learner.named_parameters()})
        end_epoch(self, *epochs)

    monkeypatch.setattr(PromptSRCMethod, "end_epoch", noted)
    trainer, _, folder = run(name, f"TRAINER.{name.upper()}.GPA_STD", "2", *BASE)
    last = torch.load(f"{folder}/{MODEL_NAME}/model.pth.tar-3", weights_only=True)["state_dict"]
    for key, value in trainer.model.learner.named_parameters():
        epochs = [prompts[key] for prompts in seen]
        mean = sum(w * part for w, part in zip(gaussian_weights(3, 2, 2).tolist(), epochs))
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-7)
        assert torch.equal(last[key], value)
        assert not torch.allclose(value, epochs[2], atol=1e-7)


# ---- losses of templates ----


def test_recorded_cosines_are_those_of_loops():
    """The losses: test_formulas.py."""
    features, anchor = unit(torch.randn(4, 5, 7).double()), unit(torch.randn(5, 7).double())
    near = [one @ own for template in features for one, own in zip(template, anchor)]
    expected = {
        "between": similarity(features),
        "deviations": similarity(unit(features - anchor)),
        "to_clip": sum(near) / 20,
    }
    expected = {name: value.item() for name, value in expected.items()}
    assert cosines(features, anchor) == pytest.approx(expected, rel=1e-9)


@examples(max_examples=8)
@given(st.integers(2, 5), st.floats(0.1, 3.0), st.floats(0.0, 1.5), st.integers(0, 99))
def test_decoupling_and_consistency_are_least_where_the_derivation_says(
    templates, decoupling, share, seed
):
    """Found from free unit vectors by LBFGS; consistency up to one and a half times the weight from
    which the templates collapse."""
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
        total = total + consistency * (1 - (features * anchor).sum(dim=-1)).mean(dim=1).sum()
        total.backward()
        return total

    for _ in range(4):
        optimizer.step(loss)
    distances = (F.normalize(free, dim=-1) - anchor).norm(dim=-1)
    rho, short = -1 / (templates - 1), SHORT**2
    constant = decoupling * short * (-rho + (1 - rho) * short / 4)
    square = constant / (decoupling * (1 - rho) / 4 + consistency * templates / 2)  # y²
    expected = max(0, math.sqrt(square) - short) ** 0.5  # 0 where they collapse
    torch.testing.assert_close(
        distances, torch.full_like(distances, expected), rtol=2e-2, atol=5e-4
    )

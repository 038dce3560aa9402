"""ProGrad's projected gradient against the textbook: two gradients through the stock encoders, then the projection in float64."""

import clip
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import scrambled
from tests.reference import stock_classifier, stock_context_features, unit
from trainers.prograd import project


@pytest.mark.parametrize("strength", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_projection_takes_away_what_works_against_the_general_gradient(sign, strength):
    torch.manual_seed(0)
    general = torch.randn(3, 5, dtype=torch.float64)
    task = torch.randn(3, 5, dtype=torch.float64)
    task = task * sign * (task * general).sum().sign()  # along or against
    expected = task
    if sign < 0:
        expected = task - strength * (task * general).sum() / (general**2).sum() * general
    projected = project(task, general, strength)
    torch.testing.assert_close(projected, expected, rtol=1e-12, atol=1e-12)
    if sign < 0 and strength == 1:
        assert abs((projected * general).sum().item()) < 1e-12, (
            "nothing is left that works against it"
        )


def test_a_general_gradient_of_zero_changes_nothing():
    task = torch.randn(4)
    assert torch.equal(project(task, torch.zeros(4), 1.0), task)


@pytest.mark.parametrize("temperature, strength", [("1.0", "1.0"), ("2.0", "0.8")])
@pytest.mark.parametrize("choice, against", [("likely", False), ("unlikely", True)])
def test_the_gradient_of_a_step_is_the_textbooks(
    run, stock_vit, choice, against, temperature, strength
):
    trainer = run(
        "ProGrad",
        "TRAINER.PROGRAD.T",
        temperature,
        "TRAINER.PROGRAD.LAMBDA",
        strength,
        flags=("--no-train",),
    )[0]
    torch.manual_seed(4)
    learner, names, images = (
        scrambled(trainer.model.learner),
        trainer.model.classnames,
        torch.randn(5, 3, 32, 32),
    )
    scale, features = stock_vit.logit_scale.exp(), unit(stock_vit.encode_image(images))
    zero_shot = (
        scale * features @ stock_classifier(stock_vit, "a texture of {}.", names).T
    )  # ProGrad's own prompt for this data set
    labels = zero_shot.argmax(1) if choice == "likely" else zero_shot.argmin(1)

    loss, figures = trainer.model.loss(trainer.model.scores(images[None]), labels)
    trainer.optim.zero_grad()
    loss.backward()

    logits = scale * features @ stock_context_features(stock_vit, learner.ctx, names).T
    cross_entropy, t = F.cross_entropy(logits, labels), float(temperature)
    teacher, student = (zero_shot / t).softmax(1), (logits / t).softmax(1)
    divergence = (teacher * (teacher.log() - student.log())).sum(1).mean() * t * t
    task, general = (
        torch.autograd.grad(each, learner.ctx, retain_graph=True)[0].double()
        for each in (cross_entropy, divergence)
    )
    dot = (task * general).sum()
    assert (dot < 0) == against, "the case is not the one that this test is for"
    expected = task - float(strength) * dot / general.norm() ** 2 * general if dot < 0 else task
    assert (
        loss.item() == pytest.approx(cross_entropy.item(), rel=1e-4)
        and figures["loss_ce"] == loss.item()
    )
    assert (learner.ctx.grad - expected).norm() / expected.norm() < 1e-3


def test_without_projection_it_is_coop(run):
    gaussian = ("TRAINER.PROGRAD.CTX_INIT", "False", "TRAINER.PROGRAD.N_CTX", "4")
    coop, coop_record, _ = run("CoOp", name="coop")
    ours, record, _ = run("ProGrad", *gaussian, "TRAINER.PROGRAD.LAMBDA", "0.0", name="prograd")
    torch.testing.assert_close(ours.model.learner.ctx, coop.model.learner.ctx, rtol=1e-4, atol=1e-6)
    assert record["metrics"]["test"]["accuracy"] == coop_record["metrics"]["test"]["accuracy"]
    projected, _, _ = run("ProGrad", *gaussian, name="projected")
    assert not torch.allclose(
        projected.model.learner.ctx, coop.model.learner.ctx, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("class_specific", ["False", "True"])
def test_it_starts_from_the_hand_crafted_prompt_behind_zeros(run, stock_vit, class_specific):
    trainer = run("ProGrad", "TRAINER.PROGRAD.CSC", class_specific, flags=("--no-train",))[0]
    context = trainer.model.learner.ctx
    assert context.shape == ((6, 6, 128) if class_specific == "True" else (6, 128))
    phrase = stock_vit.token_embedding(clip.tokenize("a texture of"))[0, 1:4]
    assert torch.equal(context.reshape(-1, 6, 128)[0], torch.cat([torch.zeros(3, 128), phrase]))


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("LAMBDA", "-1.0", "is -1.0, it must not be negative"),
        ("T", "0.0", "is 0.0, it must be above 0"),
        ("N_CTX", "2", "'a texture of', which has 3 tokens"),
        ("N_CTX", "0", "must be at least 1"),
    ],
)
def test_contradictions_are_refused(refusal, key, value, message):
    error = refusal(f"TRAINER.PROGRAD.{key}", value, trainer="ProGrad")
    assert f"TRAINER.PROGRAD.{key}" in error and message in error

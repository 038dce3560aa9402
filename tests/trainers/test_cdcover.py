"""CDC over other methods: the methods themselves as its simplest case, and the whole loss against loops in float64."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import scrambled
from tests.reference import stock_classifier, unit
from tests.trainers.test_tcp import published_texts


def options(name, **settings):
    return [
        part
        for key, value in settings.items()
        for part in (f"TRAINER.{name.upper()}.{key}", str(value))
    ]


PLAIN = {
    "N_TEMPLATES": 1,
    "LOSS": "cross_entropy",
    "FUSION": "mean_probability",
    "AUGMENTATION": None,
    "DECOUPLING_WEIGHT": 0.0,
}


@pytest.mark.parametrize("method", ["PromptSRC", "TCP"])
def test_one_template_with_cross_entropy_is_the_method(run, method):
    """From the same seed to the same weights and figures."""
    plain, record, _ = run(method, name="plain")
    ours, found, _ = run(
        f"CDC{method}",
        *options(
            f"CDC{method}", **PLAIN, PHRASES=["a photo of a"] if method == "PromptSRC" else []
        ),
        name="ours",
    )
    for name, value in plain.model.learner.named_parameters():
        torch.testing.assert_close(
            ours.model.learner.learners[0].get_parameter(name), value, rtol=1e-4, atol=1e-6
        )
    assert found["metrics"]["test"]["nll"] == pytest.approx(
        record["metrics"]["test"]["nll"], rel=1e-4
    )


def test_the_loss_over_tcp_is_the_sum_of_its_named_parts(run, stock_vit):
    trainer = run(
        "CDCTCP",
        *options("CDCTCP", DECOUPLING_WEIGHT=0.5, CONSISTENCY_WEIGHT=0.25, W=3.0),
        flags=("--no-train",),
    )[0]
    torch.manual_seed(2)
    learner = scrambled(trainer.model.learner)
    learner.offset.fill_(3.0)
    views, labels = (
        torch.randn(2, 3, 3, 32, 32),
        torch.tensor([0, 5, 2]),
    )  # a view for each template
    loss, _ = trainer.model.loss(trainer.model.scores(views), labels)
    gradients = torch.autograd.grad(loss, list(learner.parameters()))

    hand_crafted = stock_classifier(
        stock_vit, "a photo of a {}, a type of texture.", trainer.model.classnames
    )
    texts = [
        published_texts(stock_vit, one, trainer.model.classnames, hand_crafted)
        for one in learner.learners
    ]
    expected, product = 0, 1
    for m in range(2):
        logits = (
            stock_vit.logit_scale.exp() * unit(stock_vit.encode_image(views[m])) @ texts[m].T
        ).double()
        evidence = (logits - 3 + torch.tensor(6.0).log()).exp()
        expected = (
            expected
            + evidential(evidence, labels)
            + (3.0 + 0.25) * (1 - F.cosine_similarity(texts[m], hand_crafted).mean())
        )
        product = product * (1 + evidence / 6) ** 0.5  # ω = 1 / M
    expected = expected + evidential(6 * (product - 1), labels)
    deviations = [text - hand_crafted for text in texts]
    lengths = [(deviation.square().sum(1) + 0.03**2).sqrt() for deviation in deviations]
    expected = (
        expected + 0.5 * ((deviations[0] * deviations[1]).sum(1) / (lengths[0] * lengths[1])).mean()
    )
    references = torch.autograd.grad(expected, list(learner.parameters()))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for gradient, reference in zip(gradients, references, strict=True):
        assert (gradient - reference).norm() <= 2e-5 * reference.norm()


def evidential(evidence, labels):
    """Mean of (ψ(S) − ψ(α_y) − log(e_y / Σ_k e_k)) / 2."""
    alpha, right = evidence + 1, evidence[range(3), labels]
    trusted = torch.digamma(alpha.sum(1)) - torch.digamma(right + 1)
    return (trusted + (evidence.sum(1) / right).log()).mean() / 2


def test_templates_start_from_phrases_of_the_contexts_length_and_vote(run):
    trainer, record, _ = run(
        "CDCPromptSRC",
        *options(
            "CDCPromptSRC",
            PHRASES=["a photo of a", "a photo of one", "art of the", "a bad photo of the"],
        ),
    )
    assert trainer.model.possible_phrases() == ["a photo of a", "a photo of one"]
    assert (
        len(record["metrics"]["test"]["template_accuracy"]) == 2
        and 0 < record["metrics"]["test"]["mean_vacuity"] <= 1
    )
    parameters = dict(trainer.model.learner.named_parameters())
    assert trainer.model.base.memory["aggregate"].keys() == parameters.keys(), (
        "PromptSRC's mean over epochs is of all templates"
    )


def test_all_losses_share_one_pass_without_prompts(run, monkeypatch):
    model = run("CDCPromptSRC", flags=("--no-train",))[0].model
    passes, encode = [], model.unprompted_images
    for method in (model, model.base):
        monkeypatch.setattr(
            method, "unprompted_images", lambda asked: passes.append(len(asked)) or encode(asked)
        )
    model.loss(model.scores(torch.randn(2, 3, 3, 32, 32)), torch.tensor([0, 5, 2]))
    assert passes == [2], "both templates' views at once"


@pytest.mark.parametrize(
    "key, value, message",
    [("N_TEMPLATES", "0", "must be at least 1"), ("LOSS", "hinge", "takes one of evidential")],
)
def test_contradictions_are_refused(refusal, key, value, message):
    assert message in refusal(f"TRAINER.CDCTCP.{key}", value, trainer="CDCTCP")

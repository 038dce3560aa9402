"""CoPrompt's logits, loss and gradients against loops with the stock encoders, with and without sentences about the classes."""

import json
import random

import clip
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import scrambled
from tests.reference import stock_classifier, stock_context_features, stock_image_features, unit

SENTENCES = {
    name: [f"a picture that looks {name}", f"the {name} kind", "the odd one"][
        : 2 + (name == "woven")
    ]
    for name in ("banded", "dotted", "striped", "woven", "zigzagged", "grid")
}


def adapted(adapter, features, share):
    """Of features (N, E) as the encoder gives them, one by one."""
    first, second = adapter.fc[0].weight, adapter.fc[2].weight
    return unit(
        torch.stack(
            [
                share * (second @ (first @ one).clamp(min=0)).clamp(min=0) + (1 - share) * one
                for one in features
            ]
        )
    )


@pytest.mark.parametrize("described", [False, True])
def test_logits_loss_and_gradients_are_those_of_the_published_formula(
    run, stock_vit, tmp_path, described
):
    (tmp_path / "sentences.json").write_text(json.dumps(SENTENCES))
    options = ("DATASET.DESCRIPTIONS", str(tmp_path / "sentences.json")) if described else ()
    trainer = run("CoPrompt", "TRAINER.COPROMPT.W", "3.0", *options, flags=("--no-train",))[0]
    torch.manual_seed(5)
    learner, names = scrambled(trainer.model.learner), trainer.model.classnames
    views, labels = torch.randn(2, 3, 3, 32, 32), torch.tensor([0, 5, 2])
    scores = trainer.model.scores(views)
    random.seed(3)
    loss, _ = trainer.model.loss(scores, labels)
    gradients = torch.autograd.grad(loss, list(learner.parameters()))

    if described:
        random.seed(3)
        drawn = random.randrange(3)  # woven has three sentences: the others' begin again
        perturbed = torch.cat(
            [
                unit(
                    stock_vit.encode_text(
                        clip.tokenize(SENTENCES[name][drawn % len(SENTENCES[name])])
                    )
                )
                for name in names
            ]
        )
    else:
        perturbed = stock_classifier(stock_vit, "a photo of a {}, a type of texture.", names)
    deep, maps = list(learner.compound_prompts_text), learner.compound_prompt_projections
    texts = stock_context_features(
        stock_vit, learner.ctx, names, "a photo of a", deep, normalize=False
    )
    pictures = stock_image_features(
        stock_vit,
        views[0],
        learner.proj(learner.ctx),
        [project(layer) for project, layer in zip(maps, deep)],
    )
    texts, pictures = (
        adapted(learner.adapter_text, texts, 0.2),
        adapted(learner.adapter_image, pictures, 0.1),
    )
    logits = stock_vit.logit_scale.exp() * pictures @ texts.T
    apart = [
        1 - (texts * perturbed).sum(1).mean(),
        1 - (pictures * unit(stock_vit.encode_image(views[1]))).sum(1).mean(),
    ]
    expected = F.cross_entropy(logits, labels) + 3 * sum(apart)
    references = torch.autograd.grad(expected, list(learner.parameters()))
    torch.testing.assert_close(scores.logits[0], logits, rtol=1e-5, atol=2e-5)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for gradient, reference in zip(gradients, references, strict=True):
        assert (
            gradient - reference
        ).norm() <= 1e-4 * reference.norm()  # fp32, through seven layers


def test_each_step_sees_two_views_and_one_of_the_sentences(run, tmp_path, monkeypatch):
    (tmp_path / "sentences.json").write_text(json.dumps(SENTENCES))
    trainer = run(
        "CoPrompt", "DATASET.DESCRIPTIONS", str(tmp_path / "sentences.json"), flags=("--no-train",)
    )[0]
    images, _ = trainer.parse_batch_train(next(iter(trainer.train_loader_x)))
    assert len(images) == 2 and not torch.equal(images[0], images[1])
    assert trainer.model.perturbed_texts.shape == (3, 6, 48)
    distances = {
        float(trainer.model.loss(scores, torch.zeros(8, dtype=torch.long))[1]["loss_text"])
        for scores in [trainer.model.scores(images)] * 30
    }
    assert len(distances) == 3


def test_without_adapters_share_and_consistency_it_is_maple(run, monkeypatch):
    monkeypatch.setattr("trainers.coprompt.TEXT_SHARE", 0.0)
    monkeypatch.setattr("trainers.coprompt.IMAGE_SHARE", 0.0)
    maple, ours = (run(name, name=name, flags=("--no-train",))[0] for name in ("MaPLe", "CoPrompt"))
    images = torch.randn(1, 3, 3, 32, 32)
    torch.testing.assert_close(ours.model.scores(images).logits, maple.model.scores(images).logits)


def test_contradictions_are_refused(refusal):
    error = refusal("TRAINER.COPROMPT.W", "-1.0", trainer="CoPrompt")
    assert "TRAINER.COPROMPT.W is -1.0, it must not be negative" in error

"""Tip-Adapter against a loop over images and kept features."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests.reference import stock_classifier, unit
from trainers.method import Method
from trainers.tipadapter import FeatureCache

NAMES = ["TipAdapter", "TipAdapterF"]


def loop_logits(features, text, keys, labels, beta, alpha, scale):
    """(B, K), one image and one kept feature at a time."""
    logits = scale * features @ text.T
    rows = []
    for image in range(len(features)):
        votes = [
            sum(
                torch.exp(-beta * (1 - features[image] @ key))
                for key, label in zip(keys, labels.tolist())
                if label == k
            )
            for k in range(len(text))
        ]
        rows.append(
            logits[image]
            + alpha * torch.stack([torch.as_tensor(vote, dtype=torch.float32) for vote in votes])
        )
    return torch.stack(rows)


def test_logits_loss_and_gradient_are_those_of_the_loop(run, stock_vit):
    trainer = run(
        "TipAdapterF",
        "TRAINER.TIPADAPTERF.INIT_BETA",
        "2.5",
        "TRAINER.TIPADAPTERF.INIT_ALPHA",
        "3.0",
        flags=("--no-train",),
    )[0]
    torch.manual_seed(0)
    cache, labels = trainer.model.learner, torch.tensor([0, 3, 3, 5, 1, 2, 4])
    cache.fill(unit(torch.randn(7, 48)), labels)
    images, answers = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 5, 2])
    scores = trainer.model.scores(images[None])
    loss, _ = trainer.model.loss(scores, answers)
    (gradient,) = torch.autograd.grad(loss, cache.keys)
    text = stock_classifier(stock_vit, "{} texture.", trainer.model.classnames)
    logits = loop_logits(
        unit(stock_vit.encode_image(images)),
        text,
        cache.keys,
        labels,
        2.5,
        3.0,
        stock_vit.logit_scale.exp(),
    )
    expected = F.cross_entropy(logits, answers)
    (reference,) = torch.autograd.grad(expected, cache.keys)
    torch.testing.assert_close(scores.logits[0], logits, rtol=1e-5, atol=1e-4)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (gradient - reference).norm() / reference.norm() < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_the_mean_feature_of_each_images_views_and_only_f_trains_it(
    run, monkeypatch, name
):
    views, features_of = [], Method.features_of

    def noted(self, batches, **normalize):
        found = features_of(self, batches, **normalize)
        views.extend([found] if normalize else [])
        return found

    monkeypatch.setattr(Method, "features_of", noted)
    cache = run(name)[0].model.learner
    (first, labels), (second, _) = views
    assert not torch.equal(first, second), "views are drawn at random"
    assert first.norm(dim=-1).std() > 0, "not normalised before the mean"
    assert (
        labels.tolist() == cache.labels.tolist() == [label for label in range(6) for _ in range(4)]
    )
    assert torch.equal(cache.keys.detach(), unit((first + second)[0] / 2)) == (name == "TipAdapter")
    torch.testing.assert_close(cache.keys.detach(), unit((first + second)[0]), rtol=1, atol=0.1)


def test_beta_and_alpha_are_the_first_of_the_best_of_a_grid(run):
    trainer, record, _ = run(
        "TipAdapter",
        "TRAINER.TIPADAPTER.SEARCH_SCALE",
        "[30.0, 40.0]",
        "TRAINER.TIPADAPTER.SEARCH_STEP",
        "[5, 4]",
    )
    cache, text = trainer.model.learner, trainer.model.hand_crafted
    (features,), labels = trainer.model.features_of(trainer.validation_images())
    grid = [(0.1 + i * 29.9 / 5, 0.1 + j * 39.9 / 4) for i in range(5) for j in range(4)]
    accuracy = [
        (
            loop_logits(
                features,
                text,
                cache.keys.detach(),
                cache.labels,
                beta,
                alpha,
                trainer.model.backbone.logit_scale,
            ).argmax(1)
            == labels
        )
        .sum()
        .item()
        for beta, alpha in grid
    ]
    assert len(set(accuracy)) > 1, "they must differ for this test to mean anything"
    beta, alpha = grid[accuracy.index(max(accuracy))]
    assert (record["learned"]["beta"], record["learned"]["alpha"]) == (
        pytest.approx(beta),
        pytest.approx(alpha),
    )


@pytest.mark.parametrize("classes, images", [("all", 18), ("base", 9)])
def test_they_are_searched_for_on_the_whole_validation_split(run, classes, images):
    """As officially, however many shots; what is kept as predictions-val.npz stays the few-shot sample."""
    options = ("DATASET.NUM_SHOTS", "1", "DATASET.SUBSAMPLE_CLASSES", classes)
    trainer, record, folder = run("TipAdapter", *options)
    (line,) = [line for line in (folder / "log.txt").read_text().splitlines() if "β " in line]
    assert line.endswith(f"of {images} validation images right")
    plain = run("CoOp", *options, name="plain")[1]
    assert record["split_hash"] == plain["split_hash"]
    assert len(trainer.dm.dataset.val) == images / 3


@pytest.mark.parametrize("name", NAMES)
def test_other_classes_have_zero_shot_clips_answers(run, name):
    _, _, folder = run(name, "DATASET.SUBSAMPLE_CLASSES", "base", name="base")
    new = ("DATASET.SUBSAMPLE_CLASSES", "new")
    trainer, record, _ = run(
        name, *new, name="new", flags=("--eval-only", "--model-dir", str(folder))
    )
    _, zero_shot, _ = run("ZeroshotCLIP", *new, name="zero-shot")
    assert trainer.model.learner.keys is None
    assert record["metrics"]["test"]["nll"] == pytest.approx(
        zero_shot["metrics"]["test"]["nll"], rel=1e-5
    )


def test_a_cache_takes_as_many_features_as_were_kept():
    kept, other = FeatureCache(1.0, 2.0, 8, 3), FeatureCache(5.5, 1.0, 8, 3)
    kept.fill(torch.randn(5, 8), torch.tensor([0, 1, 2, 2, 0]))
    other.load_state_dict(kept.state_dict())
    x, zero_shot = unit(torch.randn(2, 8)), torch.randn(2, 3)
    assert torch.equal(other(x, zero_shot), kept(x, zero_shot)) and math.isclose(other.beta, 1.0)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("INIT_ALPHA", "-1.0", "must not be negative"),
        ("AUGMENT_EPOCH", "0", "it must be at least 1"),
        ("SEARCH_STEP", "[0, 3]", "it must be at least 1"),
    ],
)
def test_contradictions_are_refused(refusal, key, value, message):
    assert message in refusal(f"TRAINER.TIPADAPTER.{key}", value, trainer="TipAdapter")

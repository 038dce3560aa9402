"""ProLIP against the loop of its public code on the stock CLIP."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import trainer_node
from tests.reference import stock_classifier, unit
from trainers.prolip import ProLIPMethod, add_prolip_config
from trainers.prompting.backbone import build_backbone

NAMES = ["banded", "dotted", "striped"]


def method(stock_vit, *settings):
    node = trainer_node(add_prolip_config, "PREC", "fp32", *settings)
    backbone = build_backbone(stock_vit.state_dict())
    return ProLIPMethod(node, NAMES, backbone, "DescribableTextures")


def tokens_of(model, images):
    """(B, D): what the stock CLIP projects."""
    visual = model.visual
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    first = visual.class_embedding.expand(len(x), 1, -1)
    x = visual.ln_pre(torch.cat([first, x], dim=1) + visual.positional_embedding)
    return visual.ln_post(visual.transformer(x.permute(1, 0, 2))[0])


def test_it_starts_as_clip_itself(stock_vit):
    ours, images = method(stock_vit), torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(ours.tokens(images[None])[0], tokens_of(stock_vit, images))
    scores = ours(images[None])
    features = unit(stock_vit.encode_image(images))
    torch.testing.assert_close(scores.image_features[0], features, rtol=1e-4, atol=1e-5)
    texts = stock_classifier(stock_vit, "{} texture.", NAMES)
    logits = stock_vit.logit_scale.exp() * features @ texts.T
    torch.testing.assert_close(scores.logits[0], logits, rtol=1e-4, atol=1e-3)
    assert torch.equal(ours.backbone.image.proj, stock_vit.visual.proj), "CLIP's own stays"


@pytest.mark.parametrize("views", [3, 7])
def test_training_is_the_published_loop(stock_vit, views):
    """methods/ProLIP.py: Adam with ε = 1e-4 and a cosine over full batches, one view a step, λ = 1 / shots."""
    ours = method(stock_vit, "LR", 1e-2, "STEPS", 7, "VIEWS", views, "REG_WEIGHT", 1.0)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    shown = [torch.randn(6, 3, 32, 32) for _ in range(views)]
    waiting = iter(shown)

    def training(augmented=False):
        images = next(waiting)
        assert augmented
        return [(images[None, :4], labels[:4]), (images[None, 4:], labels[4:])]

    ours.start(training, None)
    assert next(waiting, None) is None
    texts = stock_classifier(stock_vit, "{} texture.", NAMES).double()
    start = stock_vit.visual.proj.detach().double()
    proj = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([proj], lr=1e-2, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7)
    for step in range(7):
        features = unit(tokens_of(stock_vit, shown[step % views]).detach().double() @ proj)
        logits = stock_vit.logit_scale.exp().double() * features @ texts.T
        loss = F.cross_entropy(logits, labels) + (proj - start).square().sum() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    moved = (proj - start).norm()
    assert moved > 0.1 and (ours.learner.vit_proj.double() - proj).norm() < 1e-3 * moved


def test_other_classes_are_answered_by_the_same_projection(run):
    trained, _, folder = run("ProLIP", "DATASET.SUBSAMPLE_CLASSES", "base", name="base")
    flags = ("--eval-only", "--model-dir", str(folder))
    new = ("DATASET.SUBSAMPLE_CLASSES", "new")
    tested, record, _ = run("ProLIP", *new, name="new", flags=flags)
    assert torch.equal(tested.model.learner.vit_proj, trained.model.learner.vit_proj)
    assert not torch.equal(trained.model.learner.vit_proj, trained.model.backbone.image.proj)
    assert record["parameters"]["learnable"] == 128 * 48


def test_a_resnet_is_refused(refusal, small_resnet_file):
    assert "choose a ViT" in refusal(trainer="ProLIP", backbone=small_resnet_file)


@pytest.mark.parametrize("key, value", [("STEPS", "0"), ("VIEWS", "0"), ("LR", "-1.0")])
def test_contradictions_are_refused(refusal, key, value):
    error = refusal(f"TRAINER.PROLIP.{key}", value, trainer="ProLIP")
    assert f"TRAINER.PROLIP.{key} is {value}, it must" in error

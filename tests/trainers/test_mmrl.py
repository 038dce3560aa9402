"""MMRL against the official forward pass on the stock CLIP's blocks, all 77 positions and one layer at a time."""

import clip
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import scrambled, trainer_node
from tests.reference import stock_classifier, unit
from trainers.mmrl import MMRLMethod, RepresentationSpace, add_mmrl_config


def with_tokens(x, blocks, maps, learner, causal):
    """(L, N, D) through ``clip``'s blocks, tokens put after the first one before the learner's layers."""
    tokens, entered = learner.compound_rep_tokens, 0
    for number, block in enumerate(blocks, 1):
        if learner.before < number <= learner.before + len(maps):
            project = maps[number - learner.before - 1]
            own = (tokens @ project.weight.T + project.bias)[:, None].expand(-1, x.shape[1], -1)
            x = torch.cat([x[:1], own, x[1 + entered :]])
            entered = len(own)
        normed = block.ln_1(x)
        mask = torch.full((len(x), len(x)), -torch.inf).triu(1) if causal else None
        x = x + block.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        x = x + block.mlp(block.ln_2(x))
    return x


def reference(model, learner, template, names, images):
    """Normalised features: texts (K, E), images by their class token and by their representation tokens (B, E)."""
    tokens = clip.tokenize([template.format(name) for name in names])
    x = (model.token_embedding(tokens) + model.positional_embedding).permute(1, 0, 2)
    x = with_tokens(
        x, model.transformer.resblocks, learner.compound_rep_tokens_r2tproj, learner, causal=True
    ).permute(1, 0, 2)
    count = len(learner.compound_rep_tokens)
    text = model.ln_final(x)[torch.arange(len(x)), tokens.argmax(1) + count] @ model.text_projection
    visual = model.visual
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = (
        torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
        + visual.positional_embedding
    )
    x = with_tokens(
        visual.ln_pre(x).permute(1, 0, 2),
        visual.transformer.resblocks,
        learner.compound_rep_tokens_r2vproj,
        learner,
        causal=False,
    )
    representation = visual.ln_post(x[1 : 1 + count]).mean(dim=0) @ learner.proj_rep
    return unit(text), unit(visual.ln_post(x[0]) @ visual.proj), unit(representation)


@pytest.mark.parametrize("first, last", [(1, 3), (2, 3), (2, 2)])
def test_logits_loss_and_gradients_are_those_of_the_official_way(run, stock_vit, first, last):
    settings = {"REP_START": first, "REP_END": last, "REG_WEIGHT": 3.0, "SCALE": 0.6}
    trainer = run(
        "MMRL",
        *(word for key, value in settings.items() for word in (f"TRAINER.MMRL.{key}", str(value))),
        flags=("--no-train",),
    )[0]
    torch.manual_seed(1)
    learner, names, template = (
        scrambled(trainer.model.learner),
        trainer.model.classnames,
        "{} texture.",
    )
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 5, 2])
    scores = trainer.model.scores(images[None])
    loss, _ = trainer.model.loss(scores, labels)
    gradients = torch.autograd.grad(loss, list(learner.parameters()))

    text, image, representation = reference(stock_vit, learner, template, names, images)
    scale = stock_vit.logit_scale.exp()
    logits = torch.stack([scale * image @ text.T, scale * representation @ text.T])
    text_clip, image_clip = (
        stock_classifier(stock_vit, template, names),
        unit(stock_vit.encode_image(images)),
    )
    expected = (
        0.6 * F.cross_entropy(logits[0], labels)
        + 0.4 * F.cross_entropy(logits[1], labels)
        + 3 * (1 - F.cosine_similarity(image, image_clip).mean())
        + 3 * (1 - F.cosine_similarity(text, text_clip).mean())
    )
    torch.testing.assert_close(scores.logits, logits, rtol=1e-5, atol=2e-4)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for gradient, known in zip(
        gradients, torch.autograd.grad(expected, list(learner.parameters())), strict=True
    ):
        assert (gradient - known).norm() / known.norm() < 1e-4
    torch.testing.assert_close(
        trainer.model.predict(logits).probability,
        (0.6 * logits[0] + 0.4 * logits[1]).softmax(dim=1),
    )


def test_classes_that_were_not_trained_are_answered_by_the_class_token_alone(run, stock_vit):
    trainer, _, folder = run("MMRL", "DATASET.SUBSAMPLE_CLASSES", "base", name="train")
    new = run(
        "MMRL",
        "DATASET.SUBSAMPLE_CLASSES",
        "new",
        name="test",
        flags=("--eval-only", "--model-dir", str(folder)),
    )[0]
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        text, image, _ = reference(
            stock_vit, trainer.model.learner, "{} texture.", new.model.classnames, images
        )
        answer = new.model.answer(images[None]).probability
    assert trainer.model.learner.proj_rep is not None and new.model.learner.proj_rep is None
    torch.testing.assert_close(
        answer, (stock_vit.logit_scale.exp() * image @ text.T).softmax(dim=1), rtol=1e-3, atol=1e-5
    )


def test_a_share_of_one_is_the_class_tokens_answer():
    """As ImageNet's variants are answered, see the recipe."""
    method = MMRLMethod.__new__(MMRLMethod)
    torch.nn.Module.__init__(method)
    method.settings = trainer_node(add_mmrl_config, "SCALE", 1.0)
    logits = torch.randn(2, 3, 4)
    assert torch.equal(method.predict(logits).probability, logits[0].softmax(dim=1))


def test_it_starts_as_the_official_code_does_and_has_the_official_size(vit_b16):
    torch.manual_seed(0)
    learner = RepresentationSpace(
        trainer_node(add_mmrl_config), "a photo of a {}.", ["cat", "bus"], vit_b16
    )
    assert learner.compound_rep_tokens.std().item() == pytest.approx(0.02, rel=0.1)
    assert learner.proj_rep.std().item() == pytest.approx(768**-0.5, rel=0.1)
    for maps in (learner.compound_rep_tokens_r2vproj, learner.compound_rep_tokens_r2tproj):
        assert len(maps) == 7 and all(torch.equal(layer.weight, maps[0].weight) for layer in maps)
    assert (
        sum(parameter.numel() for parameter in learner.parameters())
        == 5 * 512 + 7 * 513 * (768 + 512) + 768 * 512
        == 4_992_256
    )


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("N_REP_TOKENS", "0", "is 0, it must be at least 1"),
        ("REP_START", "0", "is 0, it must be at least 1"),
        ("REP_START", "4", "REP_END is 3, it must be REP_START, 4, or more"),
        ("REP_END", "4", "has 3 layers"),
        ("SCALE", "1.5", "it must be at most 1"),
        ("REG_WEIGHT", "-1.0", "must not be negative"),
    ],
)
def test_contradictions_are_refused(refusal, key, value, message):
    assert message in refusal(f"TRAINER.MMRL.{key}", value, trainer="MMRL")

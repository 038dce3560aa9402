"""CLIP-LoRA against the stock CLIP whose weights are W + α / √r · B A."""

import clip
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from tests.conftest import scrambled, trainer_node
from trainers.cliplora import LowRank, LowRankLayers, add_cliplora_config

NAMES = ["cat", "person_on_a_bike", "bus"]


def merged(model, learner, scale):
    """The stock model's attention weights, each with its change."""
    weights = dict(model.named_parameters())
    found = {}
    for tower, changes in (("transformer", learner.text), ("visual.transformer", learner.image)):
        for layer, change in enumerate(changes):
            name = f"{tower}.resblocks.{layer}.attn.in_proj_weight"
            found[name] = weights[name] + scale * torch.cat(
                [up @ down for up, down in zip(change.up, change.down)]
            )
    return found


@pytest.mark.parametrize("encoder, rank", [("both", 2), ("both", 3), ("text", 2), ("vision", 2)])
def test_logits_loss_and_gradients_are_those_of_the_merged_weights(run, stock_vit, encoder, rank):
    trainer = run(
        "CLIPLoRA",
        "TRAINER.CLIPLORA.ENCODER",
        encoder,
        "TRAINER.CLIPLORA.RANK",
        str(rank),
        "TRAINER.CLIPLORA.ALPHA",
        "1.5",
        flags=("--no-train",),
    )[0]
    torch.manual_seed(0)
    learner = scrambled(trainer.model.learner)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.mul_(0.1)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 5, 2])
    scores = trainer.model.scores(images[None])
    loss, _ = trainer.model.loss(scores, labels)
    gradients = torch.autograd.grad(loss, list(learner.parameters()))

    tokens = clip.tokenize([f"a photo of a {name}." for name in trainer.model.classnames])
    logits, _ = functional_call(
        stock_vit, merged(stock_vit, learner, 1.5 / rank**0.5), (images, tokens)
    )
    expected = F.cross_entropy(logits, labels)
    torch.testing.assert_close(scores.logits[0], logits, rtol=1e-5, atol=1e-4)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for gradient, reference in zip(
        gradients, torch.autograd.grad(expected, list(learner.parameters())), strict=True
    ):
        assert (gradient - reference).norm() / reference.norm() < 1e-4
    assert len(gradients) == {"both": 14, "text": 8, "vision": 6}[encoder]


def test_queries_keys_and_values_have_dropout_of_their_own_in_training_only():
    change = LowRank(64, 64, alpha=2.0, dropout=0.25)
    with torch.no_grad():
        change.down.copy_(torch.eye(64)), change.up.copy_(torch.eye(64))
    x, nothing = torch.rand(200, 64) + 1, torch.zeros(200, 192)
    torch.testing.assert_close(change.eval().project(x, nothing, "qkv"), x.repeat(1, 3) * 2 / 8)
    parts = change.train().project(x, nothing, "qkv").chunk(3, dim=1)
    kept = [part != 0 for part in parts]
    for part, mask in zip(parts, kept):
        torch.testing.assert_close(part[mask], (x * 2 / 8 / 0.75)[mask])
        assert mask.float().mean() == pytest.approx(0.75, abs=0.02)
    assert not torch.equal(kept[0], kept[1]) and not torch.equal(kept[1], kept[2])


def test_it_starts_as_clip_itself_and_has_the_published_size(vit, vit_b16):
    learner = LowRankLayers(trainer_node(add_cliplora_config), NAMES, vit)
    assert all(
        change.up.count_nonzero() == 0 and change.down.std() > 0
        for change in [*learner.text, *learner.image]
    )
    prompts = learner()
    torch.testing.assert_close(
        F.normalize(vit.text(*prompts.texts(slice(0, 3)))[0], dim=-1),
        vit.encode_classes("a photo of a {}.", NAMES),
    )
    count = sum(
        parameter.numel()
        for parameter in LowRankLayers(
            trainer_node(add_cliplora_config), NAMES, vit_b16
        ).parameters()
    )
    assert count == 12 * 3 * 2 * 2 * (512 + 768) == 184_320


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("ENCODER", "images", "it takes one of both, text, vision"),
        ("RANK", "0", "is 0, it must be at least 1"),
        ("DROPOUT", "1.0", "is 1.0, it must be at most 0.999"),
    ],
)
def test_contradictions_are_refused(refusal, key, value, message):
    assert message in refusal(f"TRAINER.CLIPLORA.{key}", value, trainer="CLIPLoRA")

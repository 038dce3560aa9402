"""What today's methods need of ``Method``, by two small ones: class-aware prompts at one layer, and a second head."""

import clip
import pytest
import torch
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import set_random_seed
from torch import nn

from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from tests.conftest import base_arguments
from tests.reference import prompted_embeddings, stock_image_features, stock_text_features
from trainers import PromptedClassifier
from trainers.engine.checkpoint import MODEL_NAME
from trainers.method import Method
from trainers.prompting.context import ContextLearner
from trainers.prompting.prompts import FixedTokens, gaussian
from trainers.trainer import MethodTrainer

NAMES = ["banded", "polka dotted", "zigzagged"]


class ClassAwarePrompts(nn.Module):
    """A shared context, and before layer 2 prompts made of each class's hand-crafted text (as in TCP, Yao et al., 2024)."""

    def __init__(self, hand_crafted, classnames, text):
        super().__init__()
        self.tokens = FixedTokens(text, classnames, 2, [torch.empty(0, text.width)])
        self.register_buffer("classes", hand_crafted, persistent=False)  # (K, E)
        self.ctx = nn.Parameter(gaussian(2, text.width))
        self.map = nn.Linear(hand_crafted.shape[1], 2 * text.width)

    def forward(self):
        own = self.map(self.classes).unflatten(-1, (2, -1))  # (K, n, D)
        return self.tokens(self.ctx[None], deep_text=[None, own[None]])


class ClassAwareMethod(Method):
    def build(self):
        return ClassAwarePrompts(self.hand_crafted, self.classnames, self.backbone.text)

    def parameter_groups(self, lr):
        groups = [{"params": [self.learner.ctx], "lr": 0.0}]
        return [*groups, {"params": self.learner.map.parameters()}]


class ClassAware(MethodTrainer):
    method = ClassAwareMethod


class HeadedContext(ContextLearner):
    def __init__(self, classnames, backbone):
        super().__init__(gaussian(4, backbone.text.width), classnames, backbone.text)
        self.class_parameters = ("head",)
        self.head = nn.Linear(backbone.embed_dim, len(classnames))


class SecondHeadMethod(Method):
    def build(self):
        return HeadedContext(self.classnames, self.backbone)

    def scores(self, images, encoded=None):
        scores, head = super().scores(images, encoded), self.learner.head
        if head is not None:
            scores.logits = scores.logits + head(scores.image_features)
        return scores


class SecondHead(MethodTrainer):
    method = SecondHeadMethod


@pytest.fixture
def build(data_root, small_clip_file, tmp_path, monkeypatch):
    """A trainer with CoOp's settings: ``build(class, which classes, *options)``."""

    def start(kind, classes, *options):
        arguments = [
            *base_arguments("CoOp", data_root, small_clip_file, tmp_path / classes),
            "DATASET.SUBSAMPLE_CLASSES",
            classes,
            *options,
        ]
        cfg = build_config(parse_arguments(arguments))
        cfg.defrost()
        cfg.TRAINER.NAME, cfg.TRAINER[kind.__name__.upper()] = kind.__name__, cfg.TRAINER.COOP
        cfg.freeze()
        monkeypatch.setitem(TRAINER_REGISTRY._objects, kind.__name__, kind)
        set_random_seed(1)
        return kind(cfg)

    return start


def test_deep_texts_of_any_layers_per_template_or_class_match_the_77_position_loop_in_value_and_gradient(
    vit, stock_vit
):
    contexts, own, late = (
        torch.randn(2, 2, 128) * 0.5,
        torch.randn(2, 3, 2, 128) * 0.5,
        torch.randn(2, 2, 128) * 0.5,
    )
    learned = [part.requires_grad_() for part in (contexts, own, late)]
    prompts = FixedTokens(vit.text, NAMES, 2, [torch.empty(0, 128)] * 2)(
        contexts, deep_text=[None, own, late]
    )
    ours = vit.text(*prompts.texts(slice(0, 3)))  # (M, K, E)
    texts = [clip.tokenize([f"X X {name}."]) for name in NAMES]
    theirs = torch.stack(
        [
            torch.cat(
                [
                    stock_text_features(
                        stock_vit,
                        prompted_embeddings(stock_vit, tokens, contexts[m]),
                        tokens.argmax(1),
                        [None, own[m, k], late[m]],
                    )
                    for k, tokens in enumerate(texts)
                ]
            )
            for m in range(2)
        ]
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    weights = torch.randn_like(ours)
    for found, expected in zip(
        *(torch.autograd.grad((features * weights).sum(), learned) for features in (ours, theirs))
    ):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("template", ["person doing {}.", "{}, a type of car"])
def test_words_of_the_method_may_stand_on_either_side_of_the_class_name(vit, stock_vit, template):
    context = torch.randn(2, 128) * 0.5
    prompts = FixedTokens(vit.text, NAMES, 2, [torch.empty(0, 128)], template)(context[None])
    tokens = clip.tokenize([f"X X {template.format(name)}" for name in NAMES])
    theirs = stock_text_features(
        stock_vit, prompted_embeddings(stock_vit, tokens, context), tokens.argmax(1)
    )
    torch.testing.assert_close(
        vit.text(*prompts.texts(slice(0, 3)))[0], theirs, rtol=1e-4, atol=1e-4
    )


def test_deep_images_of_one_layer_match_the_usual_loop(vit, stock_vit):
    images, visual, deep = torch.randn(3, 3, 32, 32), torch.randn(2, 2, 128), torch.randn(2, 2, 128)
    ours = vit.image(images[None], visual, [None, deep])
    theirs = torch.stack(
        [stock_image_features(stock_vit, images, visual[m], [None, deep[m]]) for m in range(2)]
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_features_can_be_had_with_their_lengths(build, stock_vit):
    model, images = build(SecondHead, "base").model, torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(
        model.encode_images(images[None], normalize=False)[0],
        stock_vit.encode_image(images),
        rtol=1e-4,
        atol=1e-4,
    )
    texts = model.encode_texts(model.learner(), normalize=False)
    torch.testing.assert_close(texts / texts.norm(dim=-1, keepdim=True), model.encode()[0])
    assert not torch.allclose(texts.norm(dim=-1), torch.ones(1, 3), atol=0.1)


def test_class_aware_prompts_train_in_groups_and_serve_new_classes(build):
    """They are made of the hand-crafted features of whichever classes are asked for."""
    trainer = build(ClassAware, "base")
    ctx, weight = trainer.model.learner.ctx.clone(), trainer.model.learner.map.weight.clone()
    trainer.train()
    assert torch.equal(trainer.model.learner.ctx, ctx), "its group's rate is 0"
    assert not torch.equal(trainer.model.learner.map.weight, weight)
    new = build(ClassAware, "new", "TRAINER.COOP.TEXT_CHUNK", "2")
    new.load_model(trainer.output_dir)
    assert torch.equal(new.model.learner.map.weight, trainer.model.learner.map.weight)
    assert not torch.equal(new.model.learner.classes, trainer.model.learner.classes)
    chunked = new.model.encode()[0]
    classifier = PromptedClassifier(trainer.model, trainer.cfg, {})
    whole = classifier.with_classes(new.model.classnames).encoded[0]
    torch.testing.assert_close(chunked.detach(), whole, rtol=1e-5, atol=1e-5)


def test_a_head_of_the_base_classes_is_saved_and_left_out_for_others(build, caplog):
    trainer = build(SecondHead, "base")
    trainer.train()
    head = trainer.model.learner.head.weight
    kept = torch.load(f"{trainer.output_dir}/{MODEL_NAME}/model.pth.tar-3", weights_only=True)[
        "state_dict"
    ]
    assert torch.equal(kept["head.weight"], head)
    again = build(SecondHead, "base")
    again.load_model(trainer.output_dir)
    assert torch.equal(again.model.learner.head.weight, head)
    new = build(SecondHead, "new")
    with caplog.at_level("INFO"):
        new.load_model(trainer.output_dir)
    assert new.model.learner.head is None and torch.equal(
        new.model.learner.ctx, trainer.model.learner.ctx
    )
    assert "Left out for these 3 classes: head" in caplog.text
    assert new.model.prompts_hash() == trainer.model.prompts_hash(kept)
    assert new.test() > 0
    classifier = PromptedClassifier(trainer.model, trainer.cfg, {})
    others = classifier.with_classes(new.model.classnames)
    assert classifier.method.learner.head is not None and others.method.learner.head is None
    assert others.with_classes(classifier.classnames).method.learner.head is None, (
        "it is lost on the way"
    )

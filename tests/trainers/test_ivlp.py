"""IVLP and its prompts, which PromptSRC shares, against the published way: 77 positions, layer by layer, either encoder for itself."""

import pytest
import torch

from tests.conftest import scrambled, trainer_node
from tests.reference import stock_context_features, stock_image_features, unit
from trainers.ivlp import add_ivlp_config
from trainers.prompting.independent import IndependentPrompts

NAMES = ["cat", "person_on_a_bike", "a very long name of a class, with comma", "bus"]


def learner_of(backbone, *pairs):
    return IndependentPrompts(trainer_node(add_ivlp_config, *pairs), NAMES, backbone)


def relative(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("text_depth, image_depth", [(1, 1), (4, 2), (2, 3)])
@pytest.mark.parametrize(
    "n_text, n_image, phrase, words",
    [
        (2, 3, "a photo of a", "a photo of a"),
        (4, 1, "a photo of a", "a photo of a"),
        (3, 2, "", None),
    ],
)
def test_features_and_gradients_are_those_of_the_published_way(
    vit, stock_vit, n_text, n_image, phrase, words, text_depth, image_depth
):
    torch.manual_seed(text_depth)
    learner = scrambled(
        learner_of(
            vit,
            "N_CTX_TEXT",
            n_text,
            "N_CTX_VISION",
            n_image,
            "CTX_INIT",
            phrase,
            "PROMPT_DEPTH_TEXT",
            text_depth,
            "PROMPT_DEPTH_VISION",
            image_depth,
        )
    )
    parameters = list(learner.parameters())
    assert len(parameters) == text_depth + image_depth
    images, text_weight, image_weight = (
        torch.randn(2, 3, 32, 32),
        torch.randn(len(NAMES), 48),
        torch.randn(2, 48),
    )

    prompts = learner()
    text = unit(vit.text(prompts.prefix, prompts.suffix, prompts.end, prompts.deep_text)[0])
    image = vit.image(images[None], prompts.visual, prompts.deep_visual)[0]
    gradients = torch.autograd.grad(
        (text * text_weight).sum() + (image * image_weight).sum(), parameters
    )

    expected_text = stock_context_features(
        stock_vit, learner.ctx, NAMES, words, list(learner.deep_ctx)
    )
    expected_image = stock_image_features(
        stock_vit, images, learner.visual.ctx, list(learner.visual.deep_ctx)
    )
    expected = torch.autograd.grad(
        (expected_text * text_weight).sum() + (expected_image * image_weight).sum(), parameters
    )
    assert relative(text, expected_text) < 1e-5 and relative(image, expected_image) < 1e-5
    for gradient, reference in zip(gradients, expected, strict=True):
        assert relative(gradient, reference) < 1e-4


def test_without_visual_prompts_it_is_deep_language_prompting(vit):
    learner = learner_of(vit, "PROMPT_DEPTH_TEXT", 3, "PROMPT_DEPTH_VISION", 0, "N_CTX_VISION", 0)
    prompts = learner()
    assert prompts.visual is None and not prompts.deep_visual and len(prompts.deep_text) == 2
    assert set(learner.state_dict()) == {"ctx", "deep_ctx.0", "deep_ctx.1"}


@pytest.mark.parametrize(
    "pairs, expected",
    [
        ((), 9 * 2 * (512 + 768)),
        (
            ("PROMPT_DEPTH_TEXT", 12, "PROMPT_DEPTH_VISION", 12),
            12 * 2 * (512 + 768),
        ),  # the base-to-new recipe
        (("N_CTX_TEXT", 4, "N_CTX_VISION", 4), 9 * 4 * (512 + 768)),  # PromptSRC's
        (
            ("N_CTX_TEXT", 4, "PROMPT_DEPTH_TEXT", 12, "N_CTX_VISION", 0, "PROMPT_DEPTH_VISION", 0),
            12 * 4 * 512,
        ),
    ],
)
def test_parameters_on_vit_b16_shapes(vit_b16, pairs, expected):
    assert sum(p.numel() for p in learner_of(vit_b16, *pairs).parameters()) == expected


@pytest.mark.parametrize(
    "options, message",
    [
        (("PROMPT_DEPTH_TEXT", "0"), "PROMPT_DEPTH_TEXT is 0, it must be at least 1"),
        (("PROMPT_DEPTH_TEXT", "5"), "PROMPT_DEPTH_TEXT is 5"),
        (("PROMPT_DEPTH_VISION", "4"), "has 3 layers to prompt"),
        (("PROMPT_DEPTH_VISION", "-1"), "PROMPT_DEPTH_VISION is -1, it must not be negative"),
        (("N_CTX_TEXT", "0"), "N_CTX_TEXT is 0, it must be at least 1"),
        (("N_CTX_VISION", "0"), "both are 0 to prompt the text encoder only"),
        (("PROMPT_DEPTH_VISION", "0"), "both are 0 to prompt the text encoder only"),
    ],
)
@pytest.mark.parametrize("trainer", ["IVLP", "PromptSRC"])
def test_contradictions_are_refused(refusal, trainer, options, message):
    node = f"TRAINER.{trainer.upper()}"
    error = refusal(
        *(f"{node}.{part}" if i % 2 == 0 else part for i, part in enumerate(options)),
        trainer=trainer,
    )
    assert message in error and node in error

"""CDC's templates: MaPLe's and CoOp's special cases, the terms of images, phrases and views; its evidence is in test_cdc_evidence.py."""

import clip
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms as T

from tests.conftest import scrambled, trainer_node
from tests.reference import prompted_embeddings, stock_image_features, stock_text_features
from trainers.cdc import DecoupledPrompts, add_cdc_config
from trainers.losses import decoupling_loss
from trainers.phrases import PHRASES, choose_phrases

NAMES = ["cat", "person_on_a_bike", "a very long name of a class, with comma", "bus"]
TEXT = (
    "TRAINER.CDC.PROMPT_MODALITY",
    "text",
    "TRAINER.CDC.PROMPT_DEPTH",
    "1",
    "TRAINER.CDC.N_CTX",
    "4",
)
PLAIN = (
    "TRAINER.CDC.IMAGE_WITNESS",
    "False",
    "TRAINER.CDC.LOSS",
    "cross_entropy",
    "TRAINER.CDC.DECOUPLING_WEIGHT",
    "0.0",
    "TRAINER.CDC.CONSISTENCY_WEIGHT",
    "0.0",
    "TRAINER.CDC.CTX_INIT",
    "['a photo of a', 'a picture of a', 'an image of a', 'a view of a']",
)


def settings(*pairs):
    return trainer_node(add_cdc_config, *pairs)


# ---- the special cases ----


@pytest.mark.parametrize(
    "n_ctx, phrases",
    [(2, ["a photo of a"] * 4), (4, ["a photo of a"] * 4), (3, ["a photo of a", "a sketch"])],
)
def test_every_template_is_maple_on_its_own(vit, stock_vit, n_ctx, phrases):
    """Each template's features equal MaPLe's: deep prompts in both encoders, the visual ones a linear map of the textual."""
    torch.manual_seed(1)
    templates, depth = 4, 3
    learner = scrambled(
        DecoupledPrompts(
            settings("N_CTX", n_ctx, "PROMPT_DEPTH", depth, "CTX_INIT", phrases), NAMES, vit
        )
    )
    prompts = learner()
    text = vit.text(prompts.prefix, prompts.suffix, prompts.end, prompts.deep_text)
    views = torch.randn(templates, 2, 3, 32, 32)
    image = vit.image(views, prompts.visual, prompts.deep_visual)
    for m in range(templates):
        phrase = (phrases[m] if m < len(phrases) else "").split()
        words = (
            phrase if len(phrase) >= n_ctx else ["X"] * n_ctx
        )  # a short phrase leaves no fixed words
        tokens = clip.tokenize([" ".join([*words, f"{name.replace('_', ' ')}."]) for name in NAMES])
        expected = stock_text_features(
            stock_vit,
            prompted_embeddings(stock_vit, tokens, learner.ctx[m]),
            tokens.argmax(1),
            [deep[m] for deep in learner.deep_ctx],
        )
        torch.testing.assert_close(text[m], expected, rtol=1e-3, atol=1e-4)
        visual = [
            F.linear(layer[m], project.weight[m], project.bias[m])
            for project, layer in zip(learner.visual_maps, [learner.ctx, *learner.deep_ctx])
        ]
        torch.testing.assert_close(
            image[m],
            stock_image_features(stock_vit, views[m], visual[0], visual[1:]),
            rtol=1e-3,
            atol=1e-4,
        )


@pytest.mark.parametrize("position", ["with", "without"])
def test_one_template_with_cross_entropy_is_coop_to_floating_point(run, position):
    init = "a photo of a" if position == "with" else ""
    coop, coop_record, _ = run("CoOp", "TRAINER.COOP.CTX_INIT", init, name="coop")
    cdc, cdc_record, _ = run(
        "CDC",
        *TEXT,
        *PLAIN,
        "TRAINER.CDC.FUSION",
        "mean_probability",
        "TRAINER.CDC.N_TEMPLATES",
        "1",
        "TRAINER.CDC.CTX_INIT",
        str([init]),
        name="cdc",
    )
    torch.testing.assert_close(
        cdc.model.learner.ctx[0], coop.model.learner.ctx, rtol=1e-4, atol=1e-6
    )
    assert not torch.equal(coop.model.learner.ctx, type(coop)(coop.cfg).model.learner.ctx), (
        "training moved nothing"
    )
    for figure in ("accuracy", "macro_f1", "nll", "ece"):
        assert cdc_record["metrics"]["test"][figure] == pytest.approx(
            coop_record["metrics"]["test"][figure], rel=1e-3, abs=1e-3
        )
    for batch in coop.test_loader:
        images, _ = coop.parse_batch_test(batch)
        ours, theirs = (trainer.model.scores(images).logits for trainer in (cdc, coop))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    assert cdc_record["split_hash"] == coop_record["split_hash"]


def test_one_template_with_cross_entropy_is_maple_to_floating_point(run):
    """From the same seed on: the same prompts after training, the same answers."""
    maple, maple_record, _ = run("MaPLe", "TRAINER.MAPLE.PROMPT_DEPTH", "3", name="maple")
    cdc, cdc_record, _ = run(
        "CDC",
        *PLAIN,
        "TRAINER.CDC.PROMPT_DEPTH",
        "3",
        "TRAINER.CDC.FUSION",
        "mean_probability",
        "TRAINER.CDC.N_TEMPLATES",
        "1",
        "TRAINER.CDC.CTX_INIT",
        "['a photo of a']",
        name="cdc",
    )
    theirs, ours = maple.model.learner, cdc.model.learner
    pairs = [(ours.ctx, theirs.ctx), *zip(ours.deep_ctx, theirs.compound_prompts_text)]
    for mine, projection in zip(
        ours.visual_maps, [theirs.proj, *theirs.compound_prompt_projections], strict=True
    ):
        pairs += [(mine.weight, projection.weight), (mine.bias, projection.bias)]
    for mine, other in pairs:
        torch.testing.assert_close(mine[0], other, rtol=1e-4, atol=1e-6)
    assert not torch.equal(theirs.ctx, type(maple)(maple.cfg).model.learner.ctx), (
        "training moved nothing"
    )
    for figure in ("accuracy", "macro_f1", "nll", "ece"):
        assert cdc_record["metrics"]["test"][figure] == pytest.approx(
            maple_record["metrics"]["test"][figure], rel=1e-3, abs=1e-3
        )
    images, _ = maple.parse_batch_test(next(iter(maple.test_loader)))
    torch.testing.assert_close(
        cdc.model.scores(images).logits, maple.model.scores(images).logits, rtol=1e-4, atol=1e-3
    )


def test_training_a_template_beside_others_changes_nothing_without_the_terms_that_couple_them(run):
    """With plain cross-entropy and one common view, template m of four ends where it ends alone."""
    four, _, _ = run("CDC", *TEXT, *PLAIN, "TRAINER.CDC.AUGMENTATION", "None", name="four")
    alone, _, _ = run(
        "CDC",
        *TEXT,
        *PLAIN,
        "TRAINER.CDC.AUGMENTATION",
        "None",
        "TRAINER.CDC.N_TEMPLATES",
        "1",
        "TRAINER.CDC.CTX_INIT",
        "['an image of a']",
        name="alone",
    )
    torch.testing.assert_close(
        four.model.learner.ctx[2], alone.model.learner.ctx[0], rtol=1e-4, atol=1e-6
    )


# ---- the losses ----


def test_weights_under_which_templates_collapse_are_named_in_a_warning(run, capsys):
    run(
        "CDC",
        *TEXT,
        "OPTIM.MAX_EPOCH",
        "1",
        "TRAINER.CDC.DECOUPLING_WEIGHT",
        "0.01",
        "TRAINER.CDC.CONSISTENCY_WEIGHT",
        "30.0",
    )
    printed = capsys.readouterr()
    lines = [
        line
        for line in (printed.out + printed.err).splitlines()
        if "DECOUPLING_WEIGHT" in line and "least" in line
    ]
    assert (
        len(lines) == 1
        and "TRAINER.CDC.DECOUPLING_WEIGHT 0.01 and CONSISTENCY_WEIGHT 30" in lines[0]
        and "below 1.85" in lines[0]
    )


def test_phrases_are_of_use_alone_and_err_on_different_images():
    """Four phrases of ten images each: the second is as good as the first but on the same images, the third on others, the last is junk."""
    right = torch.zeros(4, 10)
    right[0, :8] = right[1, :8] = right[2, 2:] = right[3, :3] = 1
    answers = (
        torch.stack([right, 1 - right], dim=-1) * 0.8 + 0.1
    )  # of class 0, which all images are of
    assert choose_phrases(answers.log(), torch.zeros(10, dtype=torch.long), 2) == [0, 2]
    assert choose_phrases(answers.log(), torch.zeros(10, dtype=torch.long), 4) == [
        0,
        2,
        1,
    ]  # and not the junk


def test_chosen_phrases_and_cosines_are_kept_with_the_prompts(run):
    trainer, record, folder = run(
        "CDC",
        "TRAINER.CDC.CTX_INIT",
        str([*PHRASES[3::-1], "a photo", "graffiti of a rather long phrase"]),
        "TRAINER.CDC.PROMPT_DEPTH",
        "3",
        name="chosen",
    )
    tokens, learned = trainer.model.learner.phrases, record["learned"]
    assert len({tuple(row) for row in tokens.tolist()}) == 4
    for of in ("texts", "images"):
        for name in ("to_clip", "between", "deviations"):
            assert (
                -1 <= learned[f"{of}_{name}_before"] <= 1
                and learned[f"{of}_{name}_after"] != learned[f"{of}_{name}_before"]
            )
    tested, again, _ = run(
        "CDC",
        "TRAINER.CDC.PROMPT_DEPTH",
        "3",
        "TRAINER.CDC.CTX_INIT",
        str(PHRASES[:5]),
        flags=("--eval-only", "--model-dir", str(folder)),
        name="tested",
    )
    assert again["metrics"]["test"] == record["metrics"]["test"]


@pytest.mark.parametrize("augmentation, views", [("1", 4), ("None", 1)])
def test_images_are_held_against_clip_without_prompts_as_each_template_sees_them(
    run, augmentation, views
):
    trainer, _, _ = run(
        "CDC",
        "TRAINER.CDC.PROMPT_DEPTH",
        "3",
        "TRAINER.CDC.AUGMENTATION",
        augmentation,
        "TRAINER.CDC.CONSISTENCY_WEIGHT",
        "2.5",
        "TRAINER.CDC.DECOUPLING_WEIGHT",
        "0.7",
        flags=("--no-train",),
    )
    scrambled(trainer.model.learner)
    images, labels = trainer.parse_batch_train(next(iter(trainer.train_loader_x)))
    passes, encode = [], trainer.model.unprompted_images
    trainer.model.unprompted_images = lambda asked: passes.append(asked) or encode(asked)
    with torch.no_grad():
        scores = trainer.model.scores(images)
        clip_features = [
            F.normalize(trainer.model.backbone.image(images[view, None])[0], dim=-1)
            for view in range(views)
        ]
    compared = range(0, len(labels), 4)  # as many images in all as the batch has
    distances = [
        1 - float(scores.image_features[m, b] @ clip_features[m % views][b])
        for m in range(4)
        for b in compared
    ]
    apart = decoupling_loss(
        scores.image_features[:, compared], torch.stack(clip_features)[:, compared]
    ).item()
    loss, figures = trainer.model.loss(scores, labels)
    figures = {name: float(value) for name, value in figures.items()}
    assert len(images) == views and min(distances) > 1e-3
    assert [asked.shape[:2] for asked in passes] == [(views, len(compared))]
    assert views < 4 or views * len(compared) == len(labels)
    assert figures["loss_con_image"] == pytest.approx(sum(distances) / len(distances), rel=1e-4)
    assert figures["loss_de_image"] == pytest.approx(apart, rel=1e-3)
    expected = (
        figures["loss_votes"]
        + 0.7 * (figures["loss_de"] + apart)
        + 2.5 * 4 * (figures["loss_con"] + sum(distances) / len(distances))
    )
    assert loss.item() == pytest.approx(expected, rel=1e-4)


# ---- views ----


@pytest.mark.parametrize("augmentation, crops", [("1", 0), ("2", 1)])
def test_views_differ_by_one_operation(run, augmentation, crops):
    trainer, _, _ = run(
        "CDC",
        *TEXT,
        "TRAINER.CDC.N_TEMPLATES",
        "5",
        "TRAINER.CDC.AUGMENTATION",
        augmentation,
        flags=("--no-train",),
    )
    views = trainer.views.transforms
    kinds = [[type(step) for step in view.transforms] for view in views]
    for view in kinds:
        assert view.count(T.RandomCrop) == crops
        assert [T.RandomResizedCrop, T.RandomHorizontalFlip, T.ToTensor, T.Normalize] == [
            kind
            for kind in view
            if kind in (T.RandomResizedCrop, T.RandomHorizontalFlip, T.ToTensor, T.Normalize)
        ]
    own = [
        [
            kind
            for kind in view
            if kind in (T.ColorJitter, T.RandomGrayscale, T.RandomApply, T.RandomAffine)
        ]
        for view in kinds
    ]
    assert own == [[], [T.ColorJitter], [T.RandomGrayscale, T.RandomApply], [T.RandomAffine], []]


@pytest.mark.parametrize("augmentation, views", [("1", 4), ("None", 1)])
def test_each_template_is_trained_on_its_own_view(run, augmentation, views):
    trainer, _, _ = run(
        "CDC", *TEXT, "TRAINER.CDC.AUGMENTATION", augmentation, flags=("--no-train",)
    )
    images, labels = trainer.parse_batch_train(next(iter(trainer.train_loader_x)))
    assert images.shape == (views, 8, 3, 32, 32) and labels.shape == (8,)
    assert all(not torch.equal(images[0], images[m]) for m in range(1, views))


def test_parameters_on_vit_b16_shapes(vit_b16):
    """A template has 9 layers × 2 tokens × 512 + 9 maps 512 → 768: MaPLe's 3.55 M."""
    for templates in (1, 4):
        learner = DecoupledPrompts(settings("N_TEMPLATES", templates), NAMES, vit_b16)
        expected = 9 * 2 * 512 + 9 * (512 * 768 + 768)
        assert sum(p.numel() for p in learner.parameters()) == templates * expected
    assert f"{expected / 1e6:.3f}" == "3.555"

"""CDC against independent references: MaPLe's and CoOp's special cases, loops for its losses, the fusion rules."""

import math
from itertools import combinations

import clip
import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms as T
from hypothesis import given
from hypothesis import settings as examples

from tests.conftest import scrambled, trainer_node
from tests.reference import prompted_embeddings, stock_image_features, stock_text_features
from trainers.cdc import DecoupledPrompts, add_cdc_config
from trainers.engine import checkpoint
from trainers.evaluation.prediction import Scores
from trainers.evidence import (
    Opinion,
    dempster,
    fitted_reliability,
    trusted_cross_entropy,
    usual_reliability,
)
from trainers.losses import (
    SHORT,
    collapse_weight,
    consistency_loss,
    cosines,
    decoupling_loss,
    distance_at_minimum,
)
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


def test_decoupling_is_the_mean_cosine_of_deviations_over_pairs():
    features, anchor = (
        F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)
        for shape in ((4, 5, 7), (5, 7))
    )
    deviations = features - anchor
    loop = [
        float(deviations[m, k] @ deviations[n, k])
        / math.sqrt(
            (float(deviations[m, k].square().sum()) + SHORT**2)
            * (float(deviations[n, k].square().sum()) + SHORT**2)
        )
        for k in range(5)
        for m, n in combinations(range(4), 2)
    ]
    assert decoupling_loss(features, anchor).item() == pytest.approx(
        sum(loop) / len(loop), rel=1e-12
    )
    assert decoupling_loss(features[:1], anchor) == 0
    plain = [
        float(F.cosine_similarity(deviations[m, k], deviations[n, k], dim=0))
        for k in range(5)
        for m, n in combinations(range(4), 2)
    ]
    found = cosines(features, anchor)
    assert found["deviations"] == pytest.approx(sum(plain) / len(plain), rel=1e-9)
    assert found["between"] == pytest.approx(
        sum(
            float(features[m, k] @ features[n, k])
            for k in range(5)
            for m, n in combinations(range(4), 2)
        )
        / 30
    )
    assert found["to_clip"] == pytest.approx(1 - consistency_loss(features, anchor).item())


@examples(max_examples=12, deadline=None)
@given(st.integers(2, 5), st.floats(0.1, 3.0), st.floats(0.0, 1.5), st.integers(0, 99))
def test_decoupling_and_consistency_are_least_where_the_derivation_says(
    templates, decoupling, share, seed
):
    """Found from free unit vectors by LBFGS; consistency up to one and a half times the weight from which the templates collapse."""
    generator = torch.Generator().manual_seed(seed)
    anchor = F.normalize(torch.randn(1, 8, generator=generator, dtype=torch.float64), dim=-1)
    free = (
        anchor + 0.1 * torch.randn(templates, 1, 8, generator=generator, dtype=torch.float64)
    ).requires_grad_()
    consistency = share**4 * collapse_weight(templates, decoupling)  # mostly far below it
    optimizer = torch.optim.LBFGS(
        [free],
        max_iter=3000,
        tolerance_grad=1e-13,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def loss():
        optimizer.zero_grad()
        features = F.normalize(free, dim=-1)
        total = decoupling * decoupling_loss(
            features, anchor
        ) + consistency * templates * consistency_loss(features, anchor)
        total.backward()
        return total

    for _ in range(4):
        optimizer.step(loss)
    distances = (F.normalize(free, dim=-1) - anchor).norm(dim=-1)
    expected = distance_at_minimum(templates, decoupling, consistency)
    assert (expected == 0) == (consistency >= collapse_weight(templates, decoupling))
    torch.testing.assert_close(
        distances, torch.full_like(distances, expected), rtol=2e-2, atol=5e-4
    )


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


def test_consistency_is_the_mean_distance_to_the_hand_crafted_prompt():
    features, anchor = (
        F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)
        for shape in ((4, 5, 7), (5, 7))
    )
    loop = [1 - float(features[m, k] @ anchor[k]) for k in range(5) for m in range(4)]
    assert consistency_loss(features, anchor).item() == pytest.approx(
        sum(loop) / len(loop), rel=1e-12
    )
    assert consistency_loss(anchor.expand(4, -1, -1), anchor).abs() < 1e-12


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
    with torch.no_grad():
        scores = trainer.model.scores(images)
        clip_features = [
            F.normalize(trainer.model.backbone.image(images[view, None])[0], dim=-1)
            for view in range(views)
        ]
    distances = [
        1 - float(scores.image_features[m, b] @ clip_features[m % views][b])
        for m in range(4)
        for b in range(len(labels))
    ]
    apart = decoupling_loss(scores.image_features, torch.stack(clip_features)).item()
    loss, figures = trainer.model.loss(scores, labels)
    figures = {name: float(value) for name, value in figures.items()}
    assert len(images) == views and min(distances) > 1e-3
    assert figures["loss_con_image"] == pytest.approx(sum(distances) / len(distances), rel=1e-4)
    assert figures["loss_de_image"] == pytest.approx(apart, rel=1e-3)
    expected = (
        figures["loss_votes"]
        + 0.7 * (figures["loss_de"] + apart)
        + 2.5 * 4 * (figures["loss_con"] + sum(distances) / len(distances))
    )
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.fixture
def asked(run):
    """A trainer whose offsets are not alike, with what its encoders may have said."""

    def start(*options):
        trainer = run("CDC", *TEXT, *options, flags=("--no-train",))[0]
        torch.manual_seed(3)
        trainer.model.learner.offset.fill_(19)
        trainer.model.learner.offset_shift.data.normal_()
        logits = torch.randn(4, 5, 6) * 3 + 20
        labels = torch.tensor([0, 1, 2, 3, 5])
        text = F.normalize(torch.randn(4, 6, 48), dim=-1)
        return trainer, logits, labels, text

    return start


@pytest.mark.parametrize("fusion", ["dempster", "mean_probability"])
def test_the_evidential_loss_is_the_sum_of_its_named_parts(asked, fusion):
    trainer, logits, labels, text = asked(
        "TRAINER.CDC.FUSION",
        fusion,
        "TRAINER.CDC.DECOUPLING_WEIGHT",
        "0.7",
        "TRAINER.CDC.CONSISTENCY_WEIGHT",
        "1.3",
    )
    offset = trainer.model.learner.offset + trainer.model.learner.offset_shift
    opinions = [Opinion(logits[m] - offset[m]) for m in range(4)]
    if fusion == "dempster":
        opinions.append(dempster(torch.stack([opinion.log_evidence for opinion in opinions])))
    expected = sum(trusted_cross_entropy(opinion, labels).mean() for opinion in opinions)
    expected = (
        expected
        + 0.7 * decoupling_loss(text, trainer.model.hand_crafted)
        + 1.3 * 4 * consistency_loss(text, trainer.model.hand_crafted)
    )
    loss, figures = trainer.model.loss(Scores(logits, None, text, None), labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert figures["loss_de"] == pytest.approx(
        decoupling_loss(text, trainer.model.hand_crafted).item(), rel=1e-5
    )


@pytest.mark.parametrize("reliability", ["fitted", "independent"])
@pytest.mark.parametrize("loss", ["evidential", "cross_entropy"])
@pytest.mark.parametrize("fusion", ["dempster", "mean_probability", "sum_logits"])
def test_fusion_rules(asked, fusion, loss, reliability):
    trainer, logits, _, _ = asked(
        "TRAINER.CDC.FUSION",
        fusion,
        "TRAINER.CDC.LOSS",
        loss,
        "TRAINER.CDC.RELIABILITY",
        reliability,
    )
    trainer.model.learner.reliability.fill_(0.3)
    power = 0.3 if reliability == "fitted" else 1.0
    offset = (trainer.model.learner.offset + trainer.model.learner.offset_shift).double()
    evidence = (logits.double() - offset[:, None, None]).exp()  # (M, B, K)
    alpha = evidence + 1
    votes = (
        alpha / alpha.sum(-1, keepdim=True) if loss == "evidential" else logits.double().softmax(-1)
    )
    fused = 6 * ((1 + evidence / 6).prod(0) ** power - 1) + 1
    expected = {
        "dempster": fused / fused.sum(-1, keepdim=True),
        "mean_probability": votes.mean(0),
        "sum_logits": logits.double().sum(0).softmax(-1),
    }[fusion]
    prediction = trainer.model.predict(logits)
    torch.testing.assert_close(prediction.probability.double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        prediction.template_probability.double(), votes, rtol=1e-4, atol=1e-6
    )
    if loss == "evidential":
        torch.testing.assert_close(
            prediction.vacuity.double(), 6 / fused.sum(-1), rtol=1e-4, atol=1e-7
        )
    else:
        assert prediction.vacuity is None  # no evidence was learned


def test_the_offset_starts_where_zero_shot_evidence_is_c_nats_above_one_per_class(run):
    trainer, _, _ = run("CDC", *TEXT, "TRAINER.CDC.EVIDENCE_START", "2.5", "OPTIM.MAX_EPOCH", "1")
    texts = F.normalize(
        trainer.model.backbone.text.encode_tokens(
            clip.tokenize([f"{name} texture." for name in trainer.model.classnames])
        ),
        dim=-1,
    )
    transform = T.Compose(
        [
            T.Resize(32, T.InterpolationMode.BICUBIC),
            T.CenterCrop(32),
            T.ToTensor(),
            T.Normalize(trainer.cfg.INPUT.PIXEL_MEAN, trainer.cfg.INPUT.PIXEL_STD),
        ]
    )
    from PIL import Image

    sums = []
    for item in trainer.dm.dataset.train_x:
        image = F.normalize(
            trainer.model.backbone.image(
                transform(Image.open(item.impath).convert("RGB"))[None, None]
            )[0, 0],
            dim=-1,
        )
        sums.append((trainer.model.backbone.logit_scale * texts @ image).exp().sum().log().item())
    expected = sum(sums) / len(sums) - math.log(6) - 2.5
    assert trainer.model.learner.offset.item() == pytest.approx(expected, rel=1e-4)
    assert (trainer.model.learner.offset_shift != 0).all()  # and is learned from there


@pytest.mark.parametrize("reliability", [0.4, 1.0])
def test_vacuity_depends_on_the_evidence_and_not_on_how_many_classes_are_asked(vit, reliability):
    """Cosines as CLIP's are, the right class on the list; each list is asked of prompts that were trained on ten classes.

    Without the change of the offset the vacuity of a hundred times as many classes would be a hundred times as large in odds.
    """
    torch.manual_seed(0)
    vacuity = {}
    right = 30 + 3 * torch.randn(4, 500, 1)
    for classes in (2, 10, 100, 1000):
        learner = DecoupledPrompts(settings("PROMPT_DEPTH", 1), ["thing"] * classes, vit)
        learner.trained_classes.fill_(10)
        learner.offset.fill_(29.0 - math.log(10))
        others = torch.full((4, 500, classes - 1), 10.0)  # far from the picture: they say nothing
        evidence = torch.cat([right, others], dim=2) - learner.evidence_offset()
        vacuity[classes] = dempster(evidence, reliability).vacuity
    for classes in (2, 100, 1000):
        torch.testing.assert_close(vacuity[classes], vacuity[10], rtol=0, atol=1e-4)


def test_vacuity_falls_with_further_classes_only_as_they_get_evidence(vit):
    """The same with wrong classes as near as CLIP's wrong classes are: 0.22 ± 0.02 where the right one has 0.30 ± 0.03."""
    torch.manual_seed(0)
    logits = torch.cat([30 + 3 * torch.randn(4, 500, 1), 22 + 2 * torch.randn(4, 500, 999)], dim=2)
    found = []
    for classes in (2, 10, 100, 1000):
        learner = DecoupledPrompts(settings("PROMPT_DEPTH", 1), ["thing"] * classes, vit)
        learner.trained_classes.fill_(100)
        learner.offset.fill_(30.0 - math.log(100))
        found.append(dempster(logits[..., :classes] - learner.evidence_offset(), 0.4).vacuity)
    for fewer, more in zip(found, found[1:]):
        assert (more <= fewer + 1e-6).all()  # a class more can only add evidence
        assert fewer.mean() - more.mean() < 0.1


def test_reliability_is_fitted_on_validation_images_and_kept_with_the_prompts(run):
    trainer, record, folder = run("CDC", *TEXT, name="trained")
    evidence, labels = [], []
    with torch.no_grad():
        for batch in trainer.val_loader:
            images, label = trainer.parse_batch_test(batch)
            evidence.append(
                trainer.model.scores(images).logits - trainer.model.learner.evidence_offset()
            )
            labels.append(label)
    expected = fitted_reliability(torch.cat(evidence, dim=1), torch.cat(labels))
    assert trainer.model.learner.reliability.item() == pytest.approx(expected, abs=1e-4)
    assert record["learned"]["reliability"] == pytest.approx(expected, abs=1e-4)
    assert abs(expected - usual_reliability(4)) > 1e-3  # so that the fit is not the default

    tested, again, _ = run(
        "CDC",
        *TEXT,
        "TRAINER.CDC.RELIABILITY",
        "fitted",
        flags=("--eval-only", "--model-dir", str(folder)),
        name="tested",
    )
    assert again["metrics"]["test"] == record["metrics"]["test"] and again["learned"] == {
        "reliability": record["learned"]["reliability"]
    }
    _, paper, _ = run(
        "CDC",
        *TEXT,
        "TRAINER.CDC.RELIABILITY",
        "independent",
        flags=("--eval-only", "--model-dir", str(folder)),
        name="paper",
    )
    assert paper["learned"]["reliability"] == 1
    assert paper["metrics"]["test"]["accuracy"] == record["metrics"]["test"]["accuracy"]
    assert paper["metrics"]["test"]["nll"] != record["metrics"]["test"]["nll"]


def test_prompts_of_earlier_versions_are_of_independent_templates(run):
    four = ("TRAINER.CDC.CTX_INIT", str(PHRASES[:4]))  # the default then
    trainer, _, folder = run("CDC", *TEXT, *four, "OPTIM.MAX_EPOCH", "1", name="old")
    file = f"{folder}/prompt_learner"
    name = checkpoint.newest(file)
    state = checkpoint.load(f"{file}/{name}")
    for key in ("trained_classes", "reliability", "phrases"):
        del state["state_dict"][key]
    checkpoint.write(state, file, name)
    loaded, record, _ = run(
        "CDC",
        *TEXT,
        *four,
        "OPTIM.MAX_EPOCH",
        "1",
        flags=("--eval-only", "--model-dir", str(folder)),
        name="tested",
    )
    assert record["learned"]["reliability"] == 1
    torch.testing.assert_close(
        loaded.model.learner.evidence_offset(), trainer.model.learner.evidence_offset()
    )


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
    """4 templates × (9 layers × 2 tokens × 512 + 9 maps 512 → 768) + 4 offsets, and for one template MaPLe's 3.55 M."""
    for templates in (1, 4):
        learner = DecoupledPrompts(settings("N_TEMPLATES", templates), NAMES, vit_b16)
        expected = 9 * 2 * 512 + 9 * (512 * 768 + 768)
        assert sum(p.numel() for p in learner.parameters()) == templates * (expected + 1)
    assert f"{expected / 1e6:.3f}" == "3.555"

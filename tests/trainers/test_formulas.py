"""Every method against its published formulas, in float64: logits, loss, gradients and answers.

A further method needs a class in ``formulas`` and a line in golden/methods.yaml.
"""

import random

import pytest
import torch

from tests.conftest import GOLDEN, make_method, slow_but_for, trainer_node
from tests.prompting.models import pair, relative
from tests.trainers.conftest import as_if_trained
from tests.trainers.formulas import PUBLISHED
from trainers import METHODS
from trainers.tcp import AFTER_CONTEXT

FORMULAS = GOLDEN["methods"]["formulas"]
# of its classes; one is longer than a text encoder's positions
SENTENCES = {
    "banded": ["Wide stripes lie beside each other.", "A flag."],
    "person_on_a_bike": ["A pattern of " + 90 * "small " + "dots."],
    "a very long name of a class, with comma": ["Lines that cross.", "It is long."],
    "grid": ["Squares in rows.", "Lines at right angles.", "Like a chessboard."],
}
NAMES = [*SENTENCES]


def scrambled_method(name, classnames=NAMES, clip="vit", **settings):
    """A method whose parts are all different, and the CLIP of ``clip``."""
    ours, stock = pair(clip)
    method = as_if_trained(make_method(name, ours, classnames, **settings))
    if hasattr(method.learner, "evidence"):  # CDC's level of it
        method.learner.evidence.offset.fill_(19.5)
    return method, stock


def assert_published(name, number, **settings):
    """Holds a method under these settings against its formulas."""
    torch.manual_seed(number)
    method, stock = scrambled_method(name, **settings)
    if method.settings.get("ANNEALING_EPOCHS"):  # with a share of the term that grows by epochs
        method.end_epoch(2, 20)
    views, learner = method.views(method.settings)[0], method.learner
    pixels = method.backbone.image.image_size
    images, labels = torch.randn(views, 5, 3, pixels, pixels), torch.tensor([0, 1, 3, 2, 0])
    published = PUBLISHED[name](stock, method)
    if number == 0:  # what CLIP holds for least likely, so that ProGrad's gradients conflict
        labels = published.cosines(stock.encode_image(images[0]), published.known).argmin(dim=1)
    random.seed(3)
    scores = method(images)
    loss, _ = method.loss(scores, labels)
    random.seed(3)
    logits, expected = published(images, labels)
    assert relative(scores.logits, logits) < 1e-9
    assert relative(loss, expected) < 1e-8  # digamma's digits
    if learner is None:
        return
    gradients = torch.autograd.grad(loss, list(learner.parameters()))
    for gradient, reference in zip(gradients, published.gradients(expected), strict=True):
        assert (gradient - reference).norm() <= 1e-7 * reference.norm()
    if name == "ProGrad" and not method.describe:  # both sides of its condition
        assert (published.dot < 0) == (number == 0)
    if not name.startswith("CDC"):  # whose answers have another level of evidence than its loss
        answer = method.eval().answer(images[:1]).probability
        assert relative(answer, published.probability(logits)) < 1e-9


@pytest.mark.parametrize(
    "name, number", [(name, n) for name, cases in FORMULAS.items() for n in range(len(cases))]
)
def test_logits_loss_gradients_and_answers_are_those_of_the_published_formulas(
    in_float64, name, number
):
    assert_published(name, number, **FORMULAS[name][number])


@slow_but_for(("CDC", "CoPrompt", "KgCoOp", "PromptSRC", "TipAdapter"), FORMULAS)
def test_so_they_are_with_sentences_about_the_classes_and_few_texts_and_images_at_a_time(
    in_float64, monkeypatch, name
):
    monkeypatch.setattr("trainers.prompting.transformer.CPU_BATCH", 1)
    settings = {"describe": lambda names: [SENTENCES[own] for own in names], **FORMULAS[name][0]}
    if "TEXT_CHUNK" in trainer_node(name):
        settings["TEXT_CHUNK"] = 3
    assert_published(name, 0, **settings)


def test_all_formulas_that_there_are_are_compared():
    """A further method may do without; each of today's has its own."""
    assert FORMULAS.keys() == PUBLISHED.keys()


@pytest.mark.parametrize(
    "name", "LinearProbe TipAdapter TipAdapterF GDA MMRL DePTCoOp DePTMaPLe".split()
)
def test_other_classes_are_answered_without_what_belongs_to_the_trained_ones(in_float64, name):
    """By the texts alone, GDA by Gaussians of the texts."""
    torch.manual_seed(0)
    method, stock = scrambled_method(name)
    other = make_method(name, method.backbone, ["dotted", "banded", "woven"])
    other.load(method.learner.state_dict(), NAMES)
    assert other.left_out
    images = torch.randn(1, 3, 3, 32, 32)
    logits, _ = PUBLISHED[name](stock, other)(images, torch.zeros(3, dtype=torch.long))
    assert len(logits) == 1
    assert relative(other(images).logits, logits) < 1e-8


@pytest.mark.parametrize("name", ["GDA", "DePTCoOp"])
def test_some_of_the_trained_classes_keep_their_rows(in_float64, name):
    """As ImageNet-A's and -R's are answered officially."""
    method, _ = scrambled_method(name)
    part = make_method(name, method.backbone, [NAMES[3], NAMES[1]])
    part.load(method.learner.state_dict(), NAMES)
    images = torch.randn(1, 3, 3, 32, 32)
    assert relative(part(images).logits, method(images).logits[..., [3, 1]]) < 1e-9


KNOWN = GOLDEN["methods"]["hand_crafted"]
OF_FEATURES = ("LinearProbe", "TipAdapter", "TipAdapterF", "GDA", "ProLIP")


def authors_prompts(name, dataset):
    """Of a method on a data set."""
    if name == "PromptSRC":
        return GOLDEN["methods"]["diverse"]
    if name == "VPT":
        return ["a photo of a {}."]
    own = [{**KNOWN["CoOp"], **KNOWN.get(name, {})}[dataset]]
    if name == "ZeroshotCLIP2":
        return GOLDEN["methods"]["selected"] + own * (dataset != "ImageNet")
    is_of_imagenet = name in OF_FEATURES and dataset.startswith("ImageNet")
    return GOLDEN["methods"]["selected"] if is_of_imagenet else own


@pytest.mark.parametrize("name", [name for name in METHODS if name in FORMULAS])
def test_hand_crafted_prompts_are_those_of_the_authors_repositories(vit, name):
    """Of all data sets, and of one that nobody has prompts for."""
    settings = {"N_CTX": 16} if name == "ProGrad" else {}
    for dataset in KNOWN["CoOp"]:
        method = make_method(name, vit, NAMES, dataset, **settings)
        assert method.hand_crafted_templates() == authors_prompts(name, dataset), dataset
    own = make_method(name, vit, NAMES, "MyPictures", **settings).hand_crafted_templates()
    assert own[-1] == "a photo of a {}." or name in ("PromptSRC", "ZeroshotCLIP2")


def test_what_follows_tcps_context_is_that_of_its_repository():
    assert AFTER_CONTEXT == GOLDEN["methods"]["after_tcps_context"]


@pytest.mark.parametrize(
    "name, dataset, own",
    [
        ("ZeroshotCLIP2", "ImageNetR", ["a photo of a {}."]),
        ("ZeroshotCLIP2", "ImageNet", []),
        ("TipAdapter", "ImageNet", []),
    ],
)
def test_imagenets_prompts_are_the_seven_selected_ones(in_float64, name, dataset, own):
    method, stock = scrambled_method(name, dataset=dataset)
    published = PUBLISHED[name](stock, method)
    published.templates = [*GOLDEN["methods"]["selected"], *own]
    assert relative(method.hand_crafted, published.known) < 1e-9

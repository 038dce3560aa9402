"""Every method beside towers that are taken as they are: it works with those that it doesn't prompt, and
refuses the others in one line."""

import pytest
import torch
from torch import nn

from tests.conftest import make_method
from tests.runs import refuses
from trainers import METHODS, method_class
from trainers.prompting.backbone import Backbone
from trainers.prompting.black_box import ImageBox, NoTexts, TextBox

NAMES = ["cat", "dog", "big bus"]
WIDTH = 48  # of the features of ``vit``
LENGTH = 40


class Words(nn.Module):
    """A text tower: the mean of letters' rows."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(128, WIDTH)

    def forward(self, tokens):
        return self.rows(tokens).mean(dim=1)


def letters(texts, length):
    rows = [[ord(letter) for letter in text][:length] for text in texts]
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


@pytest.fixture
def boxed(vit):
    """``boxed(image, text)``: a CLIP of our towers, or with black boxes in their place."""

    def make(has_image_box, has_text_box):
        network = nn.Sequential(nn.Conv2d(3, WIDTH, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        image = ImageBox(network, 32, "black box (Sequential)") if has_image_box else vit.image
        text = vit.text
        if has_text_box:
            text = TextBox(Words(), letters, LENGTH, WIDTH, "black box (Words)")
        return Backbone(text, image, vit.log_scale)

    return make


@pytest.mark.parametrize(
    "boxes",
    [(True, False), (False, True), pytest.param((True, True), marks=pytest.mark.slow)],
    ids=str,
)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_the_towers_that_it_does_not_prompt(boxed, name, boxes):
    method = method_class(name)
    has_image_box, has_text_box = boxes
    settings = (method.text_only or {}) if has_image_box else {}
    prompts_a_box = has_text_box and method.prompts_texts
    if prompts_a_box or (has_image_box and method.text_only is None):
        with refuses(r"prompts the (text|image) encoder, and the backbone.* is a black box \("):
            make_method(name, boxed(*boxes), NAMES, **settings)
        return
    model = make_method(name, boxed(*boxes), NAMES, **settings)
    images, labels = torch.randn(1, 6, 3, 32, 32), torch.arange(6) % 3
    batches = [(images, labels)]
    model.start(lambda *_, **__: batches, batches)
    views = torch.randn(method.views(model.settings)[0], 6, 3, 32, 32)
    if any(parameter.requires_grad for parameter in model.parameters()):
        loss, _ = model.train().loss(model(views), labels)
        loss.backward()
        slopes = [p.grad for p in model.learner.parameters() if p.grad is not None]
        assert slopes
        assert all(torch.isfinite(slope).all() for slope in slopes)
    answer = model.eval().answer(images)
    torch.testing.assert_close(answer.probability.sum(dim=1), torch.ones(6))


@pytest.fixture
def without_texts(boxed):
    clip = boxed(True, False)
    kind = "image encoder without texts (Sequential)"
    return Backbone(NoTexts(clip.image.parameters(), WIDTH, kind), clip.image, clip.log_scale)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_from_pictures_alone_or_refuses_a_backbone_without_texts(
    without_texts, name
):
    method = method_class(name)
    if method.needs_texts:
        with refuses(
            r"needs texts of the class names, and the backbone is an image encoder without texts \(Sequential\): "
            "choose LinearProbe, TipAdapter, TipAdapterF, GDA, or a CLIP as the backbone"
        ):
            make_method(name, without_texts, NAMES)
        return
    model = make_method(name, without_texts, NAMES)
    labels = torch.arange(12) % 3
    images = torch.randn(1, 12, 3, 32, 32)
    images[0, torch.arange(12), labels] += 3  # a colour per class
    model.start(lambda *_, **__: [(images, labels)], [(images, labels)])
    answer = model.eval().answer(images)
    assert (answer.probability.argmax(dim=1) == labels).all()
    order = [2, 0, 1]
    turned = model.for_classes([NAMES[place] for place in order]).answer(images)
    torch.testing.assert_close(turned.probability, answer.probability[:, order])
    assert model.can_answer(NAMES[:2], NAMES)
    assert not model.can_answer([*NAMES, "sun"], NAMES)


def test_the_weights_of_another_image_encoder_without_texts_are_another_signature():
    one, other = torch.randn(2, 3, 3), torch.randn(2, 3, 3)
    kept = NoTexts([one], 3, "").signature()[0]
    assert not torch.equal(kept, NoTexts([other], 3, "").signature()[0])
    one.zero_()
    assert kept.any(), "it is no view of the weights"


@pytest.mark.parametrize("boxes", [(True, False), (False, True)])
def test_beside_a_black_box_half_precision_is_autocast(boxed, fp16_anywhere, boxes):
    """Other packages' norms don't compute with float16 weights."""
    model = make_method("ZeroshotCLIP", boxed(*boxes), NAMES, PREC="fp16")
    assert model.towers.precision == "amp"
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_the_weights_of_another_text_box_are_another_signature(boxed):
    one, other = boxed(False, True), boxed(False, True)
    assert not torch.equal(one.signature()[0], other.signature()[0])
    assert torch.equal(one.signature()[0], one.signature()[0])


def test_features_of_classes_are_those_of_the_box_whatever_their_number(boxed):
    clip = boxed(True, True)
    names = [f"{letter}{number}" for letter in "abcdefghij" for number in range(30)]
    found = clip.encode_classes("a {}.", names, normalize=False)
    expected = clip.text.tower(letters([f"a {name}." for name in names], LENGTH))
    torch.testing.assert_close(found, expected)

"""Names are names, for every method: their order says nothing, some of the trained ones are told apart
as they were trained, and names that were added can be taken away again."""

import itertools

import pytest
import torch

from labelling.classifier import PromptedClassifier
from tests.conftest import make_method
from tests.reference import unit
from tests.runs import refuses
from tests.trainers.conftest import as_if_trained
from trainers import METHODS
from trainers.settings import run_config

NAMES = ["cat", "bus", "tree", "woven basket", "sea"]
ORDERS = {"turned": [4, 3, 2, 1, 0], "a part": [3, 1, 4]}
PER_CLASS = {"CSC": True}
CASES = [
    *((name, {}) for name in METHODS),
    *((name, PER_CLASS) for name in ("CoOp", "KgCoOp", "ProGrad", "DePTCoOp")),
]
# which fuse opinions: theirs is the evidence of a class that stays on a shorter list, not its share
EVIDENTIAL = [name for name in METHODS if name.startswith("CDC")]


def made(name, backbone, names, **settings):
    """A classifier of names by a method, as if it were trained."""
    method = as_if_trained(make_method(name, backbone, names, **settings)).eval()
    gaussians = getattr(method.learner, "gaussians", None)
    if gaussians is not None:
        gaussians.fit(unit(torch.randn(30, 48)), torch.arange(30) % len(names))
    return PromptedClassifier(method, run_config(), {"trainer": name})


def answers_of(classifier, pictures):
    """Logits (M, B, K) and probabilities (B, K)."""
    with torch.no_grad():
        logits = classifier.method(pictures, classifier.encoded).logits
        return logits, classifier.method.answer(pictures, classifier.encoded).probability


@pytest.mark.parametrize("name, settings", CASES)
def test_names_are_names(vit, one_thread, name, settings):
    """Through ``with_classes``, also of what it returned, and of a list with added names between."""
    classifier = made(name, vit, NAMES, **settings)
    pictures = torch.randn(1, 4, 3, 32, 32)
    logits, probability = answers_of(classifier, pictures)
    assert probability.std(dim=1).min() > 1e-3
    between = {"none": classifier, "turned": classifier.with_classes(NAMES[::-1])}
    between["two"] = classifier.with_classes(["sea", "bus"])
    if not classifier.method.is_class_specific:
        between["added"] = classifier.with_classes(["dog", "sea", "moon"])
        between["others"] = between["turned"].with_classes(["dog", "moon"])
    for (order, places), (through, start) in itertools.product(ORDERS.items(), between.items()):
        asked = start.with_classes([NAMES[place] for place in places])
        found, shares = answers_of(asked, pictures)
        why = f"{order} through {through}"
        torch.testing.assert_close(found, logits[..., places], rtol=1e-4, atol=2e-4, msg=why)
        expected = probability[:, places]
        if name in EVIDENTIAL and len(places) < len(NAMES):
            expected = classifier.method.predict(logits[..., places]).probability
        expected = expected / expected.sum(dim=1, keepdim=True)
        torch.testing.assert_close(shares, expected, rtol=2e-3, atol=1e-5, msg=why)
        assert asked.method.prompts_hash() == classifier.method.prompts_hash(), why
        assert not asked.method.note, why
        assert not asked.method.left_out, why
    whole, _ = answers_of(asked.with_classes(NAMES), pictures)
    torch.testing.assert_close(whole, logits, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["LinearProbe", "TipAdapter", "GDA"])
def test_pictures_tell_apart_names_that_are_one_to_the_clip(vit, name):
    """Such a folder is trained on; its names are asked for in any order, but none of them twice."""
    names = ["two  cats", "two cats", "sea"]
    classifier = made(name, vit, names)
    pictures = torch.randn(1, 4, 3, 32, 32)
    _, probability = answers_of(classifier, pictures)
    _, turned = answers_of(classifier.with_classes(names[::-1]), pictures)
    torch.testing.assert_close(turned, probability.flip(1), rtol=2e-3, atol=1e-5)
    with refuses("one and the same"):
        classifier.with_classes([*names, "two   cats"])


@pytest.mark.parametrize("name", METHODS)
def test_added_names_are_named_where_they_are_answered_in_another_way(vit, name):
    """Prompts answer any names in one way; what serves the trained classes alone says what it does."""
    classifier = made(name, vit, NAMES)
    part = classifier.method.class_part.names
    mixed, others = (
        classifier.with_classes(names).method
        for names in (["dog", *NAMES, "moon"], ["dog", "moon"])
    )
    for method in (mixed, others):
        assert method.note.startswith("Not trained: dog, moon. ") == bool(part)
        assert bool(method.note) == bool(part)
    if part and others.left_out:
        assert mixed.note != others.note or mixed.left_out

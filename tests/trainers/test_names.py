"""Names are names, for every method: their order says nothing, some of the trained ones are told apart
as they were trained, and names that were added can be taken away again."""

import itertools

import pytest
import torch

from tests.conftest import make_method, scrambled
from tests.reference import unit
from tests.runs import refuses
from trainers import METHODS
from trainers.class_part import ADDED, Trained
from trainers.classifier.prompted import PromptedClassifier
from trainers.settings import run_config

NAMES = ["cat", "bus", "tree", "woven basket", "sea"]
ORDERS = {"turned": [4, 3, 2, 1, 0], "a part": [3, 1, 4], "two": [2, 0]}
PER_CLASS = {"CSC": True}
CASES = [
    *((name, {}) for name in METHODS),
    *((name, PER_CLASS) for name in ("CoOp", "KgCoOp", "ProGrad", "DePTCoOp")),
]
# which fuse opinions: theirs is the evidence of a class that stays on a shorter list, not its share
EVIDENTIAL = [name for name in METHODS if name.startswith("CDC")]


def filled(method, classes=5):
    """A method as if it were trained, every part of it different."""
    learner = method.learner
    if learner is not None:
        scrambled(learner)
    if hasattr(learner, "fill"):  # Tip-Adapter's cache
        learner.fill(unit(torch.randn(9, 48)), torch.tensor([0, 3, 3, 1, 1, 2, 0, 4, 4]) % classes)
    gaussians = getattr(learner, "gaussians", None)
    if gaussians is not None:
        gaussians.fit(unit(torch.randn(30, 48)), torch.arange(30) % classes)
    if hasattr(learner, "features"):  # GDA's
        learner.features = unit(torch.randn(30, 48))
    return method.eval()


@pytest.fixture
def made(vit, one_thread):
    """A classifier of these names by a method, as if it were trained."""

    def make(name, **settings):
        method = filled(make_method(name, vit, NAMES, **settings))
        return PromptedClassifier(method, run_config(), {"trainer": name})

    return make


def answers_of(classifier, pictures):
    """Logits (M, B, K) and probabilities (B, K)."""
    with torch.no_grad():
        logits = classifier.method(pictures, classifier.encoded).logits
        return logits, classifier.method.answer(pictures, classifier.encoded).probability


@pytest.mark.parametrize("name, settings", CASES)
def test_names_are_names(made, name, settings):
    """Through ``with_classes``, also of what it returned, and of a list with added names between."""
    classifier = made(name, **settings)
    pictures = torch.randn(1, 4, 3, 32, 32)
    logits, probability = answers_of(classifier, pictures)
    assert probability.std(dim=1).min() > 1e-3, "for this test to mean anything"
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
        assert not asked.method.note and not asked.method.left_out, why
    whole, _ = answers_of(asked.with_classes(NAMES), pictures)
    torch.testing.assert_close(whole, logits, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["LinearProbe", "TipAdapter", "GDA"])
def test_pictures_tell_apart_names_that_are_one_to_the_clip(vit, name):
    """Such a folder is trained on; its names are asked for in any order, but none of them twice."""
    names = ["two  cats", "two cats", "sea"]
    method = filled(make_method(name, vit, names), classes=3)
    classifier = PromptedClassifier(method, run_config(), {"trainer": name})
    pictures = torch.randn(1, 4, 3, 32, 32)
    _, probability = answers_of(classifier, pictures)
    _, turned = answers_of(classifier.with_classes(names[::-1]), pictures)
    torch.testing.assert_close(turned, probability.flip(1), rtol=2e-3, atol=1e-5)
    for others in (["sea", "sea"], [*names, "two   cats"]):
        with refuses("one and the same"):
            classifier.with_classes(others)


@pytest.mark.parametrize("name", METHODS)
def test_added_names_are_named_where_they_are_answered_in_another_way(made, name):
    """Prompts answer any names in one way; what serves the trained classes alone says what it does."""
    classifier = made(name)
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


def test_a_name_has_the_number_that_it_was_trained_under():
    trained = Trained({}, ["a", "b", "c"])
    assert trained.numbers(["c", "x", "a"]) == [2, ADDED, 0]

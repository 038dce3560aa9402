"""Whole methods in float64, where equalities are tight on every processor."""

import pytest
import torch

from tests.conftest import scrambled
from tests.prompting.models import pair
from tests.reference import unit
from tests.trainers.formulas.prompts import GOLDEN, PromptSRC


def as_if_trained(method):
    """A method every part of which is different, but for Gaussians, which are not fitted."""
    learner = method.learner
    if learner is not None:
        scrambled(learner)
    if hasattr(learner, "fill"):  # Tip-Adapter's cache
        learner.fill(unit(torch.randn(9, 48)), torch.arange(9) % len(method.classnames))
    if hasattr(learner, "features"):  # GDA's
        learner.features = unit(torch.randn(70, 48))
    return method


@torch.no_grad()
def answered(method, batches):
    """What a method says of batches of images, and their labels."""
    scores, labels = zip(*((method(images), label) for images, label in batches))
    return scores, torch.cat(labels)


@pytest.fixture
def in_float64(monkeypatch):
    """Lets whole methods compute in float64: ``float()``, there against half precision, doubles."""
    pair("vit"), pair("vit-16")  # their weights are drawn in fp32
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    few = GOLDEN["diverse"][::20]
    monkeypatch.setattr("trainers.promptsrc.DIVERSE_TEMPLATES", few)
    monkeypatch.setattr(PromptSRC, "templates", few)
    monkeypatch.setattr("trainers.cocoop.TEXTS_AT_ONCE", 9)  # two images at once
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)

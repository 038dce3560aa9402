"""Whole methods in float64, where equalities are tight on every processor."""

import pytest
import torch

from tests.prompting.models import pair
from tests.trainers.formulas.prompts import GOLDEN, PromptSRC


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

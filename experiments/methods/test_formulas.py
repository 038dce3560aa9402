"""The methods against their formulas: sums over templates of those of the method below."""

from functools import cached_property

import pytest
import torch.nn.functional as F

from experiments.methods import OURS
from tests.trainers.formulas import PUBLISHED
from tests.trainers.formulas.prompts import TCP, PromptSRC
from tests.trainers.formulas.templates import CDC
from tests.trainers.test_formulas import assert_published


class CDCGDA(CDC):
    """Trained as CDC; its Gaussians come after training."""

    def __init__(self, stock, method):
        super().__init__(stock, method)
        self.settings = method.base.settings


class CDCOver(CDC):
    """Over the method whose class is ``over``."""

    @cached_property
    def base(self):
        return self.over(self.stock, self.method)

    def template(self, m):
        base, view, labels = self.base, self.views[m], self.labels
        pictures, texts = base.features(self.method.learner.learners[m], view)
        logits = base.cosines(pictures, texts)
        loss = base.loss(logits, pictures, texts, view, labels)
        return pictures, texts, loss - F.cross_entropy(logits, labels)


class CDCTCP(CDCOver):
    over, modality = TCP, "text"


class CDCPromptSRC(CDCOver):
    over = PromptSRC


FORMULAS = {formulas.__name__: formulas for formulas in (CDCGDA, CDCPromptSRC, CDCTCP)}
ANNEALED = {"EVIDENCE": "softplus", "ANNEALING_EPOCHS": 5, "DECOUPLED": "features"}
PHRASES = ["art of the world", "a photo of a"]


@pytest.mark.parametrize(
    "name, number, settings",
    [
        ("CDCGDA", 0, {"PROMPT_DEPTH": 3}),
        ("CDCPromptSRC", 0, {"CONSISTENCY_WEIGHT": 0.25, "PHRASES": PHRASES}),
        ("CDCTCP", 0, {"CONSISTENCY_WEIGHT": 0.25, "W": 3.0}),
        ("CDCTCP", 1, {"LOSS": "trusted", **ANNEALED}),
    ],
)
def test_logits_loss_and_gradients_are_those_of_the_formulas(
    in_float64, monkeypatch, name, number, settings
):
    monkeypatch.setitem(PUBLISHED, name, FORMULAS[name])
    assert_published(name, number, **settings)


def test_every_method_has_its_formulas():
    assert FORMULAS.keys() == OURS.keys()

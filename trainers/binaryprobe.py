"""Multi-label pictures: each label is a yes-or-no question of its own.

``BinaryProbe`` is a logistic regression per label on the features that CLIP has of the training images,
beside the texts' logits, with one weight of the texts for all labels (``maths.logistic`` under ``Sigmoid``).
A label is given from the probability on that is best for its F1 on held-out answers. Ours: the field's
methods for several labels train prompts (DualCoOp).

A text's logit counts minus the mean over the trained labels: a picture that is like all texts has none of
the labels more than another.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .class_part import ADDED, ClassPart, State
from .common.console import first_few
from .common.errors import UserError
from .evaluation.prediction import Prediction, Scores
from .learners.features import FeatureMethod, Grid, Numbers
from .maths.logistic import STRENGTHS, Sigmoid, around, regressions
from .method import Encoded
from .settings import PRECISION

USUAL_STRENGTH = 31.6  # the strength that is likeliest a priori, as in ``LinearProbe``
FALLS = 2  # strengths in a row below the best, after which no more are tried


class YesOrNo(nn.Module):
    """Weights (K, E), biases (K,) and thresholds (K,) of K labels, the weight of the texts beside them, and
    the C that they were fitted with; in float64."""

    thresholds: Tensor
    C: Tensor

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        zeros = torch.zeros(classes, width, dtype=torch.float64)
        self.weight = nn.Parameter(zeros)
        self.bias = nn.Parameter(zeros.new_zeros(classes))
        self.text_weight = nn.Parameter(zeros.new_ones(()))
        self.register_buffer("thresholds", zeros.new_full((classes,), torch.inf))
        self.register_buffer("C", zeros.new_tensor(USUAL_STRENGTH))

    def forward(self, features: Tensor, texts: Tensor) -> Tensor:
        """(B, E), (B, K) → (B, K)."""
        votes = features.double() @ self.weight.t() + self.bias  # (B, K)
        return votes + self.text_weight * texts


class BinaryProbeMethod(FeatureMethod):
    """A logistic regression per label on image features, beside the texts."""

    declared = PRECISION
    learner: YesOrNo
    class_part = ClassPart(rows={"weight": 0, "bias": 0, "thresholds": 0})

    def build(self) -> YesOrNo:
        if self.device.type == "mps":
            raise UserError(
                "BinaryProbe answers in float64, which Apple's GPUs lack: give --device cpu"
            )
        return YesOrNo(len(self.classnames), self.backbone.embed_dim)

    @cached_property
    def trained_texts(self) -> Tensor:
        """Features (T, E) of the hand-crafted prompts of the trained labels."""
        names = self.trained.classnames
        if names == self.classnames:
            return self.hand_crafted
        return self.towers.encode_hand_crafted(
            self.hand_crafted_templates(), names, [], self.unit_templates
        )

    def texts(self, features: Tensor) -> Tensor:
        """Return the texts' logits (N, K) of features (N, E), moved by ``around``."""
        of_trained = self.towers.logits(features[None], self.trained_texts[None])[0]
        return around(self.zero_shot(features), of_trained)

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        texts, _ = encoded or self.encode()
        features = self.towers.encode_images(images)  # (1, B, E)
        with torch.autocast(self.device.type, enabled=False):
            logits = self.learner(features[0], self.texts(features[0]))[None]  # (1, B, K)
        return Scores(logits, features, texts, images)

    def predict(self, logits: Tensor) -> Prediction:
        """``Prediction`` from (1, B, K) logits; a label's probability is its own, and rows don't sum to one."""
        return Prediction(logits[0].sigmoid())

    def state_for(self, state: State, classes: Sequence[int]) -> State:
        """Return the state for these labels. An untrained one has the trained ones' mean bias, and is never given."""
        asked = torch.tensor(classes)
        is_added = asked == ADDED
        served = self.class_part.of_classes(state, asked.clamp(min=0).tolist())
        served["weight"][is_added] = 0
        served["bias"][is_added] = state["bias"].mean()
        served["thresholds"][is_added] = torch.inf
        return served

    @property
    def note(self) -> str:
        if not self.added_classes:
            return ""
        return f"Not trained: {first_few(self.added_classes)}. Names alone rank these, and they are never given."

    @property
    def grid(self) -> Grid:
        return Grid([(strength,) for strength in STRENGTHS], (USUAL_STRENGTH,), FALLS)

    def learned_figures(self) -> dict[str, float]:
        return {"C": self.learner.C.item(), "text_weight": self.learner.text_weight.item()}

    @torch.no_grad()
    def held_out_logits(
        self, features: Tensor, labels: Tensor, asked: Tensor, settings: Sequence[Numbers]
    ) -> Iterator[Tensor]:
        """As ``FeatureMethod``; labels: (N, K), bool."""
        seen = F.normalize(features[0], dim=-1)  # (N, E)
        strengths = [setting[0] for setting in settings]
        texts = self.texts(asked)
        for found in regressions(seen, labels.float(), self.texts(seen), strengths, Sigmoid()):
            yield found(asked, texts)

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor, setting: Numbers) -> None:
        """As ``FeatureMethod``; labels: (N, K), bool."""
        seen = F.normalize(features[0], dim=-1)  # (N, E)
        rising = [strength for strength in STRENGTHS if strength <= setting[0]]
        *_, found = regressions(seen, labels.float(), self.texts(seen), rising, Sigmoid())
        self.learner.weight.copy_(found.weight)
        self.learner.bias.copy_(found.bias)
        self.learner.text_weight.copy_(found.text_weight)
        self.learner.C.fill_(setting[0])

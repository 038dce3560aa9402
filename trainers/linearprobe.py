"""Linear probe: logistic regression on the features that CLIP has of the training images,
regularised as is best for validation images (Radford et al., 2021, CLIP, §3.2 and appendix A.3; for
few shots as in CoOp's public repository, ``lpclip``). Texts play no part. Ours: validation images fit
a temperature, which leaves every answer and makes its probability mean something.
"""

import logging
import math
import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .class_part import ClassPart
from .features import FilledMethod, HeldOut, Setting, best_temperature, number_right
from .method import Batches, Method, TrainingImages
from .registration import registered

log = logging.getLogger(__name__)

GRID = [1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6]  # values of C that are tried first
STEPS = 8  # of the search between the best one's neighbours


def add_linearprobe_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.LINEARPROBE``."""
    cfg.TRAINER.LINEARPROBE = node = CfgNode()
    node.C = 31.6  # inverse strength where there are no validation images: CLIP's 0.316, which is for features of length 10
    node.PREC = "fp16"


class Probe(nn.Module):
    """Weights (K, E) and biases (K,) of K classes, zero until they are fitted, the C that they were
    fitted with, and the temperature of the answers."""

    weight: Any  # a parameter; None for classes that were not trained, as is the bias
    bias: Any
    C: Tensor
    temperature: Tensor

    def __init__(self, method: Method) -> None:
        super().__init__()
        classes = len(method.classnames)
        self.weight = nn.Parameter(torch.zeros(classes, method.backbone.embed_dim))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_buffer("C", torch.tensor(method.settings.C))
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, features: Tensor, zero_shot: Tensor) -> Tensor:
        """(B, E), (B, K) → (B, K); the zero-shot logits where there are no weights."""
        return zero_shot if self.weight is None else features @ self.weight.t() + self.bias


def fitted(features: Tensor, labels: Tensor, C: float, classes: int) -> tuple[Tensor, Tensor]:
    """Weights (K, E) and biases (K,) of the logistic regression of labels (N,) on features (N, E),
    in float64; of one class zeros.

    A class without images gets the smallest bias of a float, and is never answered.
    """
    features, labels = features.double().cpu(), labels.cpu()
    weight = features.new_zeros(classes, features.shape[1])
    bias = features.new_zeros(classes)
    present = labels.unique()
    if len(present) > 1:
        state = random.getstate()
        from sklearn.linear_model import LogisticRegression  # here: it takes a second

        random.setstate(state)  # whose first import draws: a run would depend on what was before it
        fit = LogisticRegression(C=C, max_iter=1000).fit(features.numpy(), labels.numpy())
        rows = [torch.from_numpy(part) for part in (fit.coef_, fit.intercept_)]
        if len(present) == 2:  # of which it has the difference
            rows = [torch.cat([-part / 2, part / 2]) for part in rows]
        bias.fill_(torch.finfo(torch.float32).min)
        weight[present], bias[present] = rows
    return weight, bias


def best_strength(accuracy: Callable[[float], float]) -> float:
    """The C that the official search ends at: the best of ``GRID``, then ``STEPS`` halvings of the
    interval from a tenth to ten times it, each dropping the end with the lower accuracy."""
    middle = math.log10(max(GRID, key=accuracy))
    left = middle - 1
    right = middle + 1
    for _ in range(STEPS):
        if accuracy(10**left) < accuracy(10**right):
            best, left = right, (left + right) / 2
        else:
            best, right = left, (left + right) / 2
    return 10**best


class LinearProbeMethod(FilledMethod):
    """Logistic regression on image features; a recipe's single epoch only measures."""

    learner: Probe
    class_part = ClassPart(("weight", "bias"), {"weight": 0, "bias": 0})
    seen: tuple[Tensor, Tensor]  # what it was last filled with

    def build(self) -> Probe:
        return Probe(self)

    def drop_class_part(self) -> None:
        self.learner.weight = None
        self.learner.bias = None

    @torch.no_grad()
    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        """Fits the regression; C and the temperature to validation images, if there are any."""
        probe = self.learner
        with torch.random.fork_rng(devices=[]):  # loaders draw seeds
            seen = self.views_of(training)
            self.fill(*seen)
            if validation is not None:
                self.choose(self.held_out(validation))
                self.fill(*seen)
        log.info(
            f"Logistic regression on the features of {len(seen[1])} images with C = {probe.C:.3g}, "
            f"temperature {probe.temperature:.3g}"
        )

    @torch.no_grad()
    def fill(self, features: Tensor, labels: Tensor) -> None:
        self.seen = F.normalize(features[0], dim=-1), labels  # (N, E), (N,)
        weight, bias = fitted(*self.seen, self.learner.C.item(), len(self.classnames))
        self.learner.weight.copy_(weight)
        self.learner.bias.copy_(bias)

    def under(self, features: Tensor) -> Callable[[Setting], Tensor]:
        seen = self.seen

        @cache
        def logits(setting: Setting) -> Tensor:
            parts = fitted(*seen, setting[0], len(self.classnames))
            weight, bias = (part.to(self.device) for part in parts)
            return features.double() @ weight.t() + bias

        return logits

    def choose(self, held_out: Sequence[HeldOut]) -> None:
        """C by the official search, and the temperature under which the labels are most likely."""
        C = best_strength(lambda C: number_right((C,), held_out))
        self.learner.C.fill_(C)
        self.learner.temperature.fill_(best_temperature((C,), held_out))


LinearProbe = registered(LinearProbeMethod)

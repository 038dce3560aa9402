"""Linear probe: logistic regression on the features that CLIP has of the training images,
regularised as is best for validation images (Radford et al., 2021, CLIP, §3.2 and appendix A.3; for
few shots as in CoOp's public repository, ``lpclip``). Texts play no part. Ours: validation images fit
a temperature, which leaves every answer and makes its probability mean something; and under
``BESIDE_TEXTS``, which one's own images take, the texts' logits count beside the probe's, with a weight
that is fitted along, so that few images, which make a poor probe, leave the texts' answers; C is then
the one under which held-out labels are most likely, and Gaussians of the images say whether a picture
is of a trained class where a list has others, too (``gaussians.among_added``).
"""

import logging
import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .class_part import ClassPart, State
from .common.setting import Setting, larger_than, node_of
from .devices import in_float64
from .learners.features import (
    FeatureMethod,
    Grid,
    MostLikely,
    Numbers,
    SizedByState,
    best_temperature,
    log_likelihood,
    number_right,
)
from .maths.gaussians import WAY_OF_ADDED, GaussianEvidence, positions_of_trained, state_for
from .maths.logistic import STRENGTHS, Softmax, regressions
from .maths.threads import one_thread
from .method import Batches, Method, TrainingImages
from .registration import registered
from .settings import PRECISION

log = logging.getLogger(__name__)

GRID = [1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6]  # values of C that are tried first
SEARCH_STEPS = 8  # of the search between the best one's neighbours
SEARCH_FALLS = 2  # values in a row below the best, after which it is asked for no more


SETTINGS = {
    "C": Setting(
        31.6,
        "inverse strength where there are no validation images: CLIP's 0.316, which is for features of "
        "length 10",
        larger_than(0),
    ),
    "BESIDE_TEXTS": Setting(
        False, "whether the texts' logits count beside the probe's; officially not"
    ),
    **PRECISION,
}


def add_linearprobe_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.LINEARPROBE``."""
    cfg.TRAINER.LINEARPROBE = node_of(SETTINGS)


class Probe(SizedByState):
    """Weights (T, E) and biases (T,) of T trained classes, zero until they are fitted, the C that they
    were fitted with, the weight of the texts' logits beside them, the temperature of the answers, and
    the Gaussians' evidence that an image is of a trained class, whose ``classes`` are the K that are
    asked for."""

    weight: Any  # a parameter; None for classes that were not trained, as are bias and Gaussians
    bias: Any
    gaussians: Any  # ``GaussianEvidence``
    C: Tensor
    text_weight: Tensor
    temperature: Tensor
    sized = ("weight", "bias")

    def __init__(self, method: Method) -> None:
        super().__init__()
        classes = len(method.classnames)
        width = method.backbone.embed_dim
        self.weight = nn.Parameter(torch.zeros(classes, width))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_buffer("C", torch.tensor(method.settings.C))
        self.register_buffer("text_weight", torch.zeros(()))
        self.register_buffer("temperature", torch.ones(()))
        self.gaussians = GaussianEvidence(width, classes)

    def forward(self, features: Tensor, zero_shot: Tensor) -> Tensor:
        """(B, E), (B, K) → (B, K); the zero-shot logits where there are no weights."""
        if self.weight is None:
            return zero_shot
        asked = self.gaussians.asked
        trained = positions_of_trained(asked)
        rows = [asked[position] for position in trained]
        votes = (features @ self.weight.t() + self.bias)[:, rows]  # (B, T)
        logits: Tensor = votes + self.text_weight * zero_shot[:, trained]
        if self.gaussians.has_added:
            logits = self.gaussians.with_added(features, logits, zero_shot, self.temperature)
        return logits


@one_thread()
def fit_logistic(features: Tensor, labels: Tensor, C: float, classes: int) -> tuple[Tensor, Tensor]:
    """Weights (K, E) and biases (K,) of the logistic regression of labels (N,) on features (N, E),
    in float64; of one class zeros.

    A class without images gets the smallest bias of a float, and is never answered.
    """
    features = features.cpu().double()
    labels = labels.cpu()
    weight = features.new_zeros(classes, features.shape[1])
    bias = features.new_zeros(classes)
    present = labels.unique()
    if len(present) > 1:
        state = random.getstate()
        # here: it takes a second
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        random.setstate(state)  # the first import draws: a run would depend on earlier imports
        with warnings.catch_warnings():  # as the official search
            warnings.simplefilter("ignore", ConvergenceWarning)
            fit = LogisticRegression(C=C, max_iter=1000).fit(features.numpy(), labels.numpy())
        rows = [torch.from_numpy(part) for part in (fit.coef_, fit.intercept_)]
        if len(present) == 2:  # the fit has their difference
            rows = [torch.cat([-part / 2, part / 2]) for part in rows]
        bias.fill_(torch.finfo(torch.float32).min)
        weight[present], bias[present] = rows
    return weight, bias


def searched_strength(accuracy: Callable[[float], float]) -> float:
    """The C that the official search ends at: the best of ``GRID``, then ``SEARCH_STEPS`` halvings of the
    interval from a tenth to ten times it, each dropping the end with the lower accuracy."""
    middle = math.log10(max(GRID, key=accuracy))
    left = middle - 1
    right = middle + 1
    for _ in range(SEARCH_STEPS):
        centre = (left + right) / 2
        if accuracy(10**left) < accuracy(10**right):
            best = right
            left = centre
        else:
            best = left
            right = centre
    return 10**best


class LinearProbeMethod(FeatureMethod):
    """Logistic regression on image features."""

    declared = SETTINGS
    learner: Probe
    class_part = ClassPart(("weight", "bias", "gaussians"))

    def build(self) -> Probe:
        return Probe(self)

    def drop_class_part(self) -> None:
        self.learner.weight = None
        self.learner.bias = None
        self.learner.gaussians = None

    def state_for(self, state: State, classes: Sequence[int]) -> State | None:
        """Return the state for a list of classes; beside the texts, the Gaussians say whether an image is
        of a trained class."""
        return state_for(state, classes, self.learner.gaussians)

    def way_of_added(self) -> str:
        return super().way_of_added() if self.left_out else WAY_OF_ADDED

    @property
    def grid(self) -> Grid:
        return Grid([(strength,) for strength in STRENGTHS], (self.settings.C,), SEARCH_FALLS)

    @torch.no_grad()
    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        """Fit the regression, and choose C and the temperature on validation images, if there are any."""
        probe = self.learner
        features, labels = self.views_of(training)
        if validation is None:
            self.fit(features, labels, (probe.C.item(),))
        else:
            asked, answers = self.validation_features(validation)
            setting, logits = self.best_setting(features, labels, asked, answers)
            self.fit(features, labels, setting)
            self.set_temperature(best_temperature(logits, answers))
        log.info(
            f"Logistic regression on the features of {len(labels)} images with C = {probe.C:.3g}, "
            f"temperature {probe.temperature:.3g}"
        )

    def best_setting(
        self, features: Tensor, labels: Tensor, asked: Tensor, answers: Tensor
    ) -> tuple[Numbers, Tensor]:
        """Choose the C that is best for other images, beside the texts the most likely one, else by the
        official search; and return their logits (N', K) under it.

        Args:
            features, labels: as in ``fit``; asked: (N', E), of the other images; answers: (N',), their
                labels.
        """
        if self.settings.BESIDE_TEXTS:
            search = MostLikely(self.grid)
            settings = self.grid.settings
            path = self.held_out_logits(features, labels, asked, settings)
            tried = {}
            for setting, tried[setting] in zip(settings, path):
                search.add(setting, log_likelihood(tried[setting], answers))
                if search.is_found:
                    break
            return search.setting, tried[search.setting]

        @cache  # the search asks for some more than once
        def logits_under(C: float) -> Tensor:
            (logits,) = self.held_out_logits(features, labels, asked, [(C,)])
            return logits

        C = searched_strength(lambda C: number_right(logits_under(C), answers))
        return (C,), logits_under(C)

    @torch.no_grad()
    def held_out_logits(
        self, features: Tensor, labels: Tensor, asked: Tensor, settings: Sequence[Numbers]
    ) -> Iterator[Tensor]:
        seen = F.normalize(features[0], dim=-1)  # (N, E)
        strengths = [setting[0] for setting in settings]
        if self.settings.BESIDE_TEXTS:
            texts = self.zero_shot(asked)
            for regression in regressions(seen, labels, self.zero_shot(seen), strengths, Softmax()):
                yield regression(asked, texts)
            return
        for strength in strengths:
            parts = fit_logistic(seen, labels, strength, len(self.classnames))
            values = in_float64(asked)
            weight, bias = (part.to(values.device) for part in parts)
            yield values @ weight.t() + bias

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor, setting: Numbers) -> None:
        probe = self.learner
        probe.C.fill_(setting[0])
        seen = F.normalize(features[0], dim=-1)  # (N, E)
        if self.settings.BESIDE_TEXTS:
            weaker = [strength for strength in STRENGTHS if strength < setting[0]]
            texts = self.zero_shot(seen)
            *_, found = regressions(seen, labels, texts, [*weaker, setting[0]], Softmax())
            weight = found.weight
            bias = found.bias
            probe.text_weight.copy_(found.text_weight)
            probe.gaussians.fit(seen, labels)
        else:
            weight, bias = fit_logistic(seen, labels, probe.C.item(), len(self.classnames))
        probe.weight.copy_(weight)
        probe.bias.copy_(bias)


LinearProbe = registered(LinearProbeMethod)

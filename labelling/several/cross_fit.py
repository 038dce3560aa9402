"""``BinaryProbe`` fitted to all pictures, and an answer to each by what was fitted without its fold.

The strength of what is kept is the one under which the labels of all folds are most likely; that of a
fold's answers is the one that is best for the other folds, so that a picture's labels play no part in
its own answer.
"""

import math
from dataclasses import dataclass

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.learners.features import Grid, MostLikely
from trainers.maths.binary import STRENGTHS, BinaryProbe, probes
from trainers.maths.threads import one_thread

USUAL = 31.6  # around which the strength is a priori, as that of ``LinearProbe``
GRID = Grid([(strength,) for strength in STRENGTHS], (USUAL,), 2)


@dataclass(frozen=True)
class CrossFitted:
    """What was fitted to N pictures.

    Attributes:
        probe: fitted to all of them, under the strength ``C``.
        probability: (N, K), in fp32, of each label by what was fitted without the picture's fold.
    """

    probe: BinaryProbe
    C: float
    probability: numpy.ndarray


@torch.no_grad()
@one_thread()
def cross_fit(features: Tensor, texts: Tensor, truth: Tensor, fold: Tensor) -> CrossFitted:
    """Fits the probe to pictures and answers each out of its fold.

    Args:
        features: (N, E), of length one; texts: (N, K), the texts' logits; truth: (N, K), bool.
        fold: (N,), of each picture, from 0.
    """
    parts = fold.unique().tolist()
    paths = []
    for part in parts:
        others = fold != part
        paths.append(probes(features[others], truth[others], texts[others], STRENGTHS))
    whole = MostLikely(GRID)
    without = [MostLikely(GRID) for _ in parts]
    tried: dict[float, list[Tensor]] = {}  # strength → logits (n, K) of each fold
    for strength in STRENGTHS:
        tried[strength] = []
        likelihoods = []
        for part, path in zip(parts, paths):
            own = fold == part
            logits = next(path)(features[own], texts[own])
            tried[strength].append(logits)
            loss = F.binary_cross_entropy_with_logits(logits, truth[own].double(), reduction="sum")
            likelihoods.append(-loss.item())
        total = math.fsum(likelihoods)
        whole.note((strength,), torch.tensor([total], dtype=torch.float64))
        for one, own_likelihood in zip(without, likelihoods):
            rest = torch.tensor([total - own_likelihood], dtype=torch.float64)
            one.note((strength,), rest)
        if whole.is_found and all(one.is_found for one in without):
            break
    probability = torch.empty(truth.shape)
    for place, (part, one) in enumerate(zip(parts, without)):
        probability[fold == part] = tried[one.setting[0]][place].sigmoid().float()
    C = whole.setting[0]
    rising = [strength for strength in STRENGTHS if strength <= C]
    *_, probe = probes(features, truth, texts, rising)
    return CrossFitted(probe, C, probability.numpy())

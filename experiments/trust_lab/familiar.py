"""How familiar a picture is to a run: the share of the training pictures that are at least as far from the
others as this one is.

A picture is far by what it shows or by how it looks. What it shows is the CLIP's features: its distance is
1 minus the mean cosine to the ``NEAREST`` training pictures. How it looks is a few statistics of its pixels
(brightness, colours, and contrast at four scales): its distance is Mahalanobis', of one normal distribution
of the training pictures. A CLIP is trained to ignore how a picture looks, so that features alone find few
changed cameras (docs/uncertainty.md).

A picture is as far as the larger of both distances is, in standard deviations of their logarithms above
the mean of the training pictures. Its rank among theirs is a conformal p-value: for a picture that comes as
they came it is at most α with a probability of about α, whatever the features are. Training pictures are
judged by others only: by the nearest of other groups, and by distributions of folds without their group.
Groups are what comes independently, so that each counts once.

References:
    - Vovk, Gammerman and Shafer (2005), "Algorithmic Learning in a Random World", §2.2: conformal p-values.
    - Lee, Barber and Willett (2023), "Distribution-free Inference with Hierarchical Data": groups.
    - Sun, Ming, Zhu and Li (2022), "Out-of-distribution Detection with Deep Nearest Neighbors".
    - Lee, Lee, Lee and Shin (2018), "A Simple Unified Framework for Detecting Out-of-Distribution Samples":
      Mahalanobis' distance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

UNFAMILIAR = 0.05  # p-values up to which a picture is unlike the run's
NEAREST = 3  # training pictures that a distance is taken to
KEPT = 10_000  # training pictures, at most
FOLDS = 10  # of groups, whose look is judged by the others
RIDGE = 0.01  # share of the mean variance of standardised statistics that is added to each
BLOCK = 1000  # pictures whose cosines are computed at a time
SIDE = 64  # pixels of a side that statistics are taken of
SCALES = 4  # at which contrast is measured: 64, 32, 16 and 8 pixels a side
FAINT = 1e-3  # contrast, below which there is none
NEXT_TO_NOTHING = 1e-6  # a distance, as of a copy


def looks_of(pixels: Tensor) -> numpy.ndarray:
    """How pictures look: 16 statistics each, (B, 16) in fp32.

    They are the means (3) and deviations (3) of the colours, mean and deviation of the saturation, and at
    each of ``SCALES`` the logarithms of the mean and the root mean square of the differences of neighbours.

    Args:
        pixels: (B, 3, H, W), as the CLIP is shown them.
    """
    small = F.adaptive_avg_pool2d(pixels.float(), SIDE)  # (B, 3, S, S)
    saturation = small.amax(dim=1) - small.amin(dim=1)  # (B, S, S)
    found = [
        small.mean(dim=(2, 3)),
        small.std(dim=(2, 3)),
        torch.stack([saturation.mean(dim=(1, 2)), saturation.std(dim=(1, 2))], dim=1),
    ]
    grey = small.mean(dim=1, keepdim=True)  # (B, 1, S, S)
    for _ in range(SCALES):
        steps = [grey.diff(dim=2).flatten(1), grey.diff(dim=3).flatten(1)]
        contrast = torch.cat(steps, dim=1).abs()  # (B, 2 S (S − 1))
        root_mean_square = contrast.square().mean(dim=1).sqrt()
        means = torch.stack([contrast.mean(dim=1), root_mean_square], dim=1)  # (B, 2)
        found.append((means + FAINT).log())
        grey = F.avg_pool2d(grey, 2)
    return torch.cat(found, dim=1).cpu().numpy()


@dataclass(frozen=True)
class Look:
    """A normal distribution of how pictures look.

    Attributes:
        mean: (S,); precision: (S, S), both in float64.
    """

    mean: numpy.ndarray
    precision: numpy.ndarray

    def distance(self, looks: numpy.ndarray) -> numpy.ndarray:
        """Mahalanobis' distance, squared, (N,) of statistics (N, S)."""
        around = looks - self.mean
        distance: numpy.ndarray = ((around @ self.precision) * around).sum(axis=1)
        return distance


def fit_look(looks: numpy.ndarray) -> Look:
    """The distribution of statistics (N, S), with ``RIDGE``."""
    looks = looks.astype(float)
    scale = looks.std(axis=0) + 1e-6  # what all pictures share
    around = (looks - looks.mean(axis=0)) / scale
    covariance = around.T @ around / len(looks) + RIDGE * numpy.eye(len(scale))
    precision = numpy.linalg.inv(covariance) / scale[:, None] / scale[None, :]
    return Look(looks.mean(axis=0), precision)


def content_distance(cosines: numpy.ndarray) -> numpy.ndarray:
    """1 minus the mean (N,) of the ``NEAREST`` largest of cosines (N, M)."""
    number = min(NEAREST, cosines.shape[1])
    largest = numpy.partition(cosines, -number, axis=1)[:, -number:]
    distance: numpy.ndarray = 1 - largest.mean(axis=1)
    return distance


@dataclass(frozen=True)
class Familiar:
    """What is kept of N training pictures in G groups.

    Attributes:
        features: (N, E), of length one, in float16.
        weight: (N,), 1 / the number of pictures of a picture's group.
        distances: (N, 2), the logarithms of the distances from the others, by content and by look.
        look: of all pictures.
    """

    features: numpy.ndarray
    weight: numpy.ndarray
    distances: numpy.ndarray
    look: Look

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return round(float(self.weight.sum()))

    @cached_property
    def single(self) -> numpy.ndarray:
        """The features (N, E) in fp32, in which they are multiplied."""
        return self.features.astype(numpy.float32)

    def score(self, distances: numpy.ndarray) -> numpy.ndarray:
        """The larger (L,) of logarithms of distances (L, 2), in the training pictures' deviations."""
        deviation = self.distances.std(axis=0) + 1e-6
        score: numpy.ndarray = ((distances - self.distances.mean(axis=0)) / deviation).max(axis=1)
        return score

    @cached_property
    def farthest_first(self) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Minus the scores (N,) of the training pictures, upwards, and the sums (N + 1,) of the weights of
        the first 0 … N."""
        score = self.score(self.distances)
        order = numpy.argsort(-score, kind="stable")
        return -score[order], numpy.append(0, self.weight[order].cumsum())

    def p_values(self, features: numpy.ndarray, looks: numpy.ndarray) -> numpy.ndarray:
        """How familiar pictures are, (L,) in (0, 1].

        Args:
            features: (L, E), of any length; looks: (L, S), see ``looks_of``.
        """
        content = []
        for block in numpy.split(unit(features), range(BLOCK, len(features), BLOCK)):
            content.append(content_distance(block @ self.single.T))
        score = self.score(logarithms(numpy.concatenate(content), self.look.distance(looks)))
        known, sums = self.farthest_first
        number = numpy.searchsorted(known, -score, side="right")  # (L,), as far or farther
        p_value: numpy.ndarray = (1 + sums[number]) / (self.groups + 1)
        return p_value

    def arrays(self) -> dict[str, numpy.ndarray]:
        """What is kept, by name, as a file of arrays holds it."""
        return {
            "features": self.features,
            "weight": self.weight,
            "distances": self.distances,
            "look_mean": self.look.mean,
            "look_precision": self.look.precision,
        }


def familiar_of(stored: Mapping[str, numpy.ndarray]) -> Familiar:
    """What ``Familiar.arrays`` gave."""
    look = Look(stored["look_mean"], stored["look_precision"])
    return Familiar(stored["features"], stored["weight"], stored["distances"], look)


def logarithms(content: numpy.ndarray, look: numpy.ndarray) -> numpy.ndarray:
    """The logarithms (N, 2) of distances (N,) by content and by look."""
    found: numpy.ndarray = numpy.log(numpy.stack([content, look], axis=1).clip(NEXT_TO_NOTHING))
    return found


def unit(features: numpy.ndarray) -> numpy.ndarray:
    """Features (N, E) of length one, in fp32."""
    features = features.astype(numpy.float32)
    scaled: numpy.ndarray = features / numpy.linalg.norm(features, axis=1, keepdims=True)
    return scaled


def fit_familiar(
    features: numpy.ndarray, looks: numpy.ndarray, groups: numpy.ndarray, seed: int = 1
) -> Familiar:
    """What has to be kept of training pictures.

    Args:
        features: (N, E), of any length; looks: (N, S), see ``looks_of``; groups: (N,), numbers.
        seed: of the choice of ``KEPT`` pictures, where there are more, and of folds.

    Raises:
        ValueError: all pictures are of one group, so that none can be judged by others.
    """
    draws = numpy.random.default_rng(seed)
    if len(features) > KEPT:
        chosen = numpy.sort(draws.permutation(len(features))[:KEPT])
        features, looks, groups = features[chosen], looks[chosen], groups[chosen]
    _, group, size = numpy.unique(groups, return_inverse=True, return_counts=True)
    if len(size) == 1:
        raise ValueError("all pictures are of one group: none can be judged by others")
    half = unit(features).astype(numpy.float16)
    known = half.astype(numpy.float32)
    content = []
    for block in numpy.split(numpy.arange(len(known)), range(BLOCK, len(known), BLOCK)):
        cosines = known[block] @ known.T  # (n, N)
        cosines[group[block, None] == group] = -1
        content.append(content_distance(cosines))
    fold = (draws.permutation(len(size)) % FOLDS)[group]
    look_distance = numpy.empty(len(known))
    for part in numpy.unique(fold):
        own = fold == part
        look_distance[own] = fit_look(looks[~own]).distance(looks[own])
    distances = logarithms(numpy.concatenate(content), look_distance)
    return Familiar(half, 1 / size[group], distances, fit_look(looks))

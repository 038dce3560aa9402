"""Familiarity of a picture to a run: the share of the training pictures that are at least as far from the
others as this one is.

A picture is far by what it shows or by how it looks. What it shows is the CLIP's own features: its distance is
1 minus the mean cosine to the ``NEAREST_REFERENCES`` training pictures. How it looks is a few statistics of its pixels,
see ``appearance``: its distance is Mahalanobis', of one normal distribution of the training pictures.

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

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy

from trainers.common.errors import UserError, raise_machines
from trainers.common.record_file import Record, nested, read_kept

FAMILIAR_FILE = "familiar.npz"  # in the run's folder
WITHHELD = (
    "Pictures unlike the run's get no label, which costs 1 in 20 of those that come as the run's came "
    "(--label-unfamiliar gives them one)"
)
NEAREST_REFERENCES = 3  # training pictures that a distance is taken to
MOST_REFERENCES = 10_000  # training pictures, at most
LOOK_FOLDS = 10  # of groups, whose look is judged by the others
RIDGE = 0.01  # share of the mean variance of standardised statistics that is added to each
COSINES_PER_BLOCK = 1000  # pictures whose cosines are computed at a time
NEAR = 0.4  # of the root mean square distance of two pictures: nearer ones are near neighbours
NEXT_TO_NOTHING = 1e-6  # a distance, as of a copy


@dataclass(frozen=True)
class Look:
    """A normal distribution of how pictures look.

    Attributes:
        mean: (S,); precision: (S, S), both in float64.
    """

    mean: numpy.ndarray
    precision: numpy.ndarray

    def distance(self, looks: numpy.ndarray) -> numpy.ndarray:
        """Return the squared Mahalanobis distance (N,) of statistics (N, S)."""
        around = looks - self.mean
        distance: numpy.ndarray = ((around @ self.precision) * around).sum(axis=1)
        return distance


def fit_look(looks: numpy.ndarray) -> Look:
    """Return the distribution of statistics (N, S), with ``RIDGE``."""
    looks = looks.astype(float)
    scale = looks.std(axis=0) + 1e-6  # of a statistic that all pictures share
    around = (looks - looks.mean(axis=0)) / scale
    covariance = around.T @ around / len(looks) + RIDGE * numpy.eye(len(scale))
    precision = numpy.linalg.inv(covariance) / scale[:, None] / scale[None, :]
    return Look(looks.mean(axis=0), precision)


@dataclass(frozen=True)
class Familiar:
    """N training pictures in G groups, as a run keeps them.

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
        """The number G of groups."""
        return round(float(self.weight.sum()))

    @cached_property
    def single(self) -> numpy.ndarray:
        """The features (N, E) in fp32, for multiplications."""
        return self.features.astype(numpy.float32)

    def score(self, distances: numpy.ndarray) -> numpy.ndarray:
        """Return the larger (L,) of logarithms of distances (L, 2), in the training pictures' deviations."""
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

    def as_far(self, distances: numpy.ndarray) -> numpy.ndarray:
        """Return how many groups (L,) of training pictures are as far as logarithms of distances (L, 2), or farther."""
        known, sums = self.farthest_first
        number = numpy.searchsorted(known, -self.score(distances), side="right")  # (L,)
        groups: numpy.ndarray = sums[number]
        return groups

    def p_values(self, features: numpy.ndarray, looks: numpy.ndarray) -> numpy.ndarray:
        """Return how familiar pictures are, (L,) in (0, 1].

        Args:
            features: (L, E), of any length; looks: (L, S), of ``appearance.looks_of``.
        """
        content = []
        for block in numpy.split(
            unit(features), range(COSINES_PER_BLOCK, len(features), COSINES_PER_BLOCK)
        ):
            content.append(content_distance(block @ self.single.T))
        distances = logarithms(numpy.concatenate(content), self.look.distance(looks))
        p_value: numpy.ndarray = (1 + self.as_far(distances)) / (self.groups + 1)
        return p_value

    def own_p_values(self) -> numpy.ndarray:
        """Return how familiar the N pictures themselves are, each to those of other groups, (N,) in (0, 1]."""
        p_value: numpy.ndarray = self.as_far(self.distances) / self.groups  # itself, too
        return p_value

    def arrays(self) -> dict[str, numpy.ndarray]:
        """Return the kept arrays by name, for a file."""
        return {
            "features": self.features,
            "weight": self.weight,
            "distances": self.distances,
            "look_mean": self.look.mean,
            "look_precision": self.look.precision,
        }


def content_distance(cosines: numpy.ndarray) -> numpy.ndarray:
    """Return 1 minus the mean (N,) of the ``NEAREST_REFERENCES`` largest of cosines (N, M)."""
    number = min(NEAREST_REFERENCES, cosines.shape[1])
    largest = numpy.partition(cosines, -number, axis=1)[:, -number:]
    distance: numpy.ndarray = 1 - largest.mean(axis=1)
    return distance


def logarithms(content: numpy.ndarray, look: numpy.ndarray) -> numpy.ndarray:
    """Return the logarithms (N, 2) of distances (N,) by content and by look."""
    found: numpy.ndarray = numpy.log(numpy.stack([content, look], axis=1).clip(NEXT_TO_NOTHING))
    return found


def unit(features: numpy.ndarray) -> numpy.ndarray:
    """Return features (N, E) of length one, in fp32."""
    features = features.astype(numpy.float32)
    scaled: numpy.ndarray = features / numpy.linalg.norm(features, axis=1, keepdims=True)
    return scaled


def fit_familiar(
    features: numpy.ndarray, looks: numpy.ndarray, groups: numpy.ndarray, seed: int = 1
) -> Familiar:
    """Keep the features and looks of training pictures. With a single group all are equally far, since
    pictures are judged by other groups only.

    Args:
        features: (N, E), of any length; looks: (N, S), of ``appearance.looks_of``; groups: (N,), numbers.
        seed: of the choice of ``MOST_REFERENCES`` pictures, where there are more, and of folds.
    """
    draws = numpy.random.default_rng(seed)
    if len(features) > MOST_REFERENCES:
        chosen = numpy.sort(draws.permutation(len(features))[:MOST_REFERENCES])
        features, looks, groups = features[chosen], looks[chosen], groups[chosen]
    _, group, size = numpy.unique(groups, return_inverse=True, return_counts=True)
    half = unit(features).astype(numpy.float16)
    distances = numpy.zeros((len(half), 2))
    if len(size) > 1:
        fold = (draws.permutation(len(size)) % LOOK_FOLDS)[group]
        content = content_apart(half.astype(numpy.float32), group)
        distances = logarithms(content, look_apart(looks, fold))
    return Familiar(half, 1 / size[group], distances, fit_look(looks))


def cosines_of_others(features: numpy.ndarray, group: numpy.ndarray) -> Iterator[numpy.ndarray]:
    """Yield the cosines (n, N) of the next n pictures with all of N, -1 within a group, in blocks.

    Args:
        features: (N, E), of length one; group: (N,).
    """
    for block in numpy.split(
        numpy.arange(len(features)), range(COSINES_PER_BLOCK, len(features), COSINES_PER_BLOCK)
    ):
        cosines = features[block] @ features.T  # (n, N)
        cosines[group[block, None] == group] = -1
        yield cosines


def content_apart(features: numpy.ndarray, group: numpy.ndarray) -> numpy.ndarray:
    """Return the distance (N,) by content of each picture from those of other groups.

    Args:
        features: (N, E), of length one; group: (N,), of at least two.
    """
    return numpy.concatenate([content_distance(own) for own in cosines_of_others(features, group)])


def has_near(features: numpy.ndarray, groups: numpy.ndarray) -> numpy.ndarray:
    """Return whether each picture has a near neighbour in another group, (N,) bool.

    Args:
        features: (N, E), of any length; groups: (N,), numbers.
    """
    features = unit(features)
    mean_square = 1 - (features.mean(axis=0) ** 2).sum()  # half of it, as 1 minus a cosine is
    nearest = numpy.concatenate([own.max(axis=1) for own in cosines_of_others(features, groups)])
    is_near: numpy.ndarray = 1 - nearest <= NEAR**2 * mean_square
    return is_near


def look_apart(looks: numpy.ndarray, fold: numpy.ndarray) -> numpy.ndarray:
    """Return the distance (N,) by look of each picture from those of other folds.

    Args:
        looks: (N, S); fold: (N,), of at least two.
    """
    distance = numpy.empty(len(looks))
    for part in numpy.unique(fold):
        own = fold == part
        distance[own] = fit_look(looks[~own]).distance(looks[own])
    return distance


def read_familiar(folder: str, record: Record) -> Familiar | None:
    """Read a run's familiarity of its training pictures; None where its record names no such file, as of
    a run on a data set of the field.

    Raises:
        UserError: the file is missing, damaged, or another run's.
    """
    digest = nested(record, "files", FAMILIAR_FILE)
    if digest is None:
        return None
    path = f"{folder}/{FAMILIAR_FILE}"
    try:
        stored = read_kept(path, digest)
        look = Look(stored["look_mean"], stored["look_precision"])
        return Familiar(stored["features"], stored["weight"], stored["distances"], look)
    except Exception as error:  # damaged bytes can raise anything
        raise_machines(error, path)
        raise UserError(
            f"{path} can't be read ({type(error).__name__}: {error}), so that nothing says which pictures are unlike the "
            "run's: put the run's own file there again, or repeat the run's command, what is trained is only tested again"
        ) from error


def is_kept(folder: str, record: Record) -> bool:
    """Return whether a run has kept its training pictures, as its record says."""
    try:
        return read_familiar(folder, record) is not None
    except UserError:
        return False

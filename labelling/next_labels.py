"""Choice of unlabelled pictures to label next: spread over the features while few are labelled, the most uncertain
ones later; with several labels per picture spread throughout.

While few are labelled, answers are too poor to say where they are unsure: pictures are clustered, and the
one nearest to the centre of each cluster that holds no labelled picture is asked for, the largest cluster
first (Hacohen, Dekel and Weinshall 2022, "Active Learning on a Budget"). ``experiments/label_next.py``
measures both, and where the switch lies.
"""

import warnings

import numpy
from numpy.random import Generator

from trainers.maths.threads import one_thread

FEW_PER_CLASS = 20  # labelled pictures per class, below which the next ones are spread
MOST_CLUSTERED = 20_000  # pictures that are clustered; of more a sample


def next_to_label(
    features: numpy.ndarray,
    uncertainty: numpy.ndarray,
    known: numpy.ndarray,
    per_class: float,
    number: int,
    multi_label: bool,
) -> numpy.ndarray:
    """Return the places of pictures in the order to label them, ``number`` at most.

    Args:
        features: (N, E), of length one; uncertainty: (N,) of the answers.
        known: (M, E), of the labelled pictures; per_class: how many these are for each class.
        multi_label: whether a picture may have several labels.
    """
    if is_spread(per_class, multi_label):
        return spread(features, known, number)
    return most_uncertain(uncertainty)[:number]


def is_spread(per_class: float, multi_label: bool) -> bool:
    """Return whether the next pictures are spread over the features, rather than the most uncertain ones."""
    return multi_label or per_class < FEW_PER_CLASS


def most_uncertain(uncertainty: numpy.ndarray) -> numpy.ndarray:
    """Return the places (N,) by falling uncertainty."""
    return numpy.argsort(-uncertainty, kind="stable")


@one_thread()  # OpenMP's sums, and so the choice, would depend on their number
def spread(features: numpy.ndarray, known: numpy.ndarray, number: int) -> numpy.ndarray:
    """Return the places of typical pictures of different kinds, see the head of this module."""
    # here, since it takes a second
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    draws = numpy.random.default_rng(0)
    pool = sample(len(features), draws)
    number = min(number, len(pool))
    labelled = known[sample(len(known), draws)].reshape(-1, features.shape[1])
    points = numpy.concatenate([features[pool], labelled])
    clusters = min(number + len(labelled), len(points))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal pictures make fewer clusters
        found = KMeans(clusters, n_init=1, max_iter=20, random_state=0).fit(points)
    distance = numpy.linalg.norm(points - found.cluster_centers_[found.labels_], axis=1)
    own = found.labels_[: len(pool)]
    of_known = found.labels_[len(pool) :]
    sizes = numpy.bincount(own, minlength=clusters)
    has_known = numpy.bincount(of_known, minlength=clusters) > 0
    order = numpy.lexsort((-sizes, has_known))  # without labelled pictures first, then by size
    nearest = numpy.full(clusters, -1)
    for place in numpy.argsort(-distance[: len(pool)], kind="stable"):
        nearest[own[place]] = place
    chosen = [nearest[cluster] for cluster in order if nearest[cluster] >= 0]
    return pool[chosen[:number]]


def sample(number: int, draws: Generator) -> numpy.ndarray:
    """Return the places of up to ``MOST_CLUSTERED`` of a number of pictures."""
    if number <= MOST_CLUSTERED:
        return numpy.arange(number)
    return numpy.sort(draws.choice(number, MOST_CLUSTERED, replace=False))

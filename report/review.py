"""Which pictures a person should look at: those whose given label is probably wrong, and those to
label next. Pure functions on the answers to images that nothing was trained on."""

import numpy

FALSE = 0.5  # the share of right labels among those that are listed


def probably_wrong(
    label: numpy.ndarray, top: numpy.ndarray, top_probability: numpy.ndarray
) -> numpy.ndarray:
    """Images whose given label is probably wrong: indices, the least probable labels first.

    An image counts for the most probable class of those whose probability is at least the mean that
    the class has on the images that bear its label; its own label is probably wrong where that is
    another class, and its probability at most ``suspicious_below``: otherwise every mistake of a
    classifier that errs often would count as a wrong label. They are ordered by self-confidence, the
    probability of the given label.

    Args:
        label: (N,) given labels; top, top_probability: (N, T) the most probable classes, downwards.
            A label that is not among them counts as 0.

    References:
        Northcutt, Jiang, Chuang (2021), "Confident Learning: Estimating Uncertainty in Dataset
        Labels", eqs. 1 and 2 (the confident joint) and §3.3 (ranking).
    """
    own = numpy.where(top == label[:, None], top_probability, 0).sum(axis=1)  # (N,)
    thresholds = numpy.full(max(label.max(), top.max()) + 1, numpy.inf)
    for of_class in numpy.unique(label):
        thresholds[of_class] = own[label == of_class].mean(dtype=float)
    reached = top_probability >= thresholds[top]  # (N, T)
    counted = top[numpy.arange(len(top)), reached.argmax(axis=1)]
    is_suspicious = own <= suspicious_below(own, top_probability)
    wrong = numpy.flatnonzero(reached.any(axis=1) & (counted != label) & is_suspicious)
    found: numpy.ndarray = wrong[numpy.argsort(own[wrong], kind="stable")]
    return found


def suspicious_below(own: numpy.ndarray, top_probability: numpy.ndarray) -> float:
    """The highest probability of a given label, up to which at most ``FALSE`` of such labels are to be
    expected if all labels were right and the probabilities calibrated; below 0 where there is none.

    Args:
        own: (N,) probability of the given labels; top_probability: (N, T) of the most probable classes.

    References:
        Benjamini, Hochberg (1995), "Controlling the False Discovery Rate".
    """
    beyond = 1 - top_probability.sum(axis=1, dtype=float)  # a label beyond them counts as 0
    chance = numpy.concatenate([numpy.zeros(len(own)), top_probability.ravel()])
    order = numpy.argsort(chance, kind="stable")
    mass = numpy.concatenate([beyond.clip(0), top_probability.ravel()])[order].cumsum()
    seen = numpy.sort(own)
    expected = mass[numpy.searchsorted(chance[order], seen, side="right") - 1]  # (N,)
    number = numpy.searchsorted(seen, seen, side="right")  # (N,)
    holds = seen[expected <= FALSE * number]
    return float(holds.max()) if len(holds) else -1.0


def least_certain(uncertainty: numpy.ndarray) -> numpy.ndarray:
    """All images, those to label next first: indices by falling uncertainty (N,); equally uncertain
    images keep their order.

    References:
        Lewis and Gale (1994), "A Sequential Algorithm for Training Text Classifiers": uncertainty
        sampling.
    """
    order: numpy.ndarray = numpy.argsort(-uncertainty, kind="stable")
    return order

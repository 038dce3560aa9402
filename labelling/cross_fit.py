"""Cross-validation of a classifier of image features on all pictures: each is answered by what was fitted
without it, and what is kept is fitted to all.

Every picture is encoded once. Each fold is answered by the classifier that is fitted to the other folds;
the setting and the temperature of these answers are those that are best for the other folds, so that
a picture's label plays no part in its own answer. What is kept is fitted to all pictures, under the
setting that is best for all folds.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.common.errors import UserError
from trainers.evaluation.prediction import Prediction
from trainers.learners.features import (
    FeatureMethod,
    MostLikely,
    Numbers,
    answers_at,
    best_temperature,
    log_likelihood,
)
from trainers.maths.threads import one_thread


@dataclass(frozen=True)
class FeatureSet:
    """Pictures whose features are known, of any length.

    Attributes:
        views: (R, N, E), what a classifier is fitted to, see ``FeatureMethod.views_of``.
        shown: (N, E), the pictures as they are tested; labels: (N,).
        groups: (N,), a number for each group of pictures that look alike; None: each is alone.
    """

    views: Tensor
    shown: Tensor
    labels: Tensor
    groups: Tensor | None = None


@torch.no_grad()
@one_thread()
def cross_fit(
    method: FeatureMethod,
    known: FeatureSet,
    number: int,
    seed: int,
    note: Callable[[], object] = lambda: None,
) -> Prediction:
    """Fits a classifier to all pictures; returns the answers to them on the CPU, each by the classifier
    as it was fitted without the picture's fold.

    Args:
        number: of folds; seed: of the division into folds; note: is called after each setting that was tried.
    """
    labels = known.labels
    fold = folds(labels.cpu(), number, seed, known.groups).to(labels.device)
    places = [(fold == part).nonzero().flatten() for part in fold.unique()]
    tried, whole, without = search(method, known, places, note)
    answers = []
    for part, found in enumerate(without):
        others = [other for other in range(len(places)) if other != part]
        temperature = temperature_of(tried[found.setting], labels, places, others)
        answers.append(answers_at(tried[found.setting][part], temperature).cpu())
    method.fit(known.views, labels, whole.setting)
    every = range(len(places))
    method.set_temperature(temperature_of(tried[whole.setting], labels, places, every))
    return Prediction.concatenate(answers).part(torch.cat(places).argsort().cpu())


Tried = dict[Numbers, list[Tensor]]  # setting → logits (n, K) of each fold by what has not seen it


def search(
    method: FeatureMethod, known: FeatureSet, places: Sequence[Tensor], note: Callable[[], object]
) -> tuple[Tried, MostLikely, list[MostLikely]]:
    """Tries settings until the best for all folds, and the best for all but each of them, are found.

    places: indices of each fold's pictures.

    Returns:
        the logits of all folds under each setting that was tried; the search over all folds; those
        over all but each fold.
    """
    grid = method.grid
    paths = []
    for place in places:
        is_other = torch.ones(len(known.labels), dtype=torch.bool, device=place.device)
        is_other[place] = False
        asked = F.normalize(known.shown[place], dim=-1)
        views = known.views[:, is_other]
        paths.append(method.held_out_logits(views, known.labels[is_other], asked, grid.settings))
    whole = MostLikely(grid)
    without = [MostLikely(grid) for _ in places]
    tried: Tried = {}
    for setting, *logits in zip(grid.settings, *paths):
        tried[setting] = logits
        likelihoods = [
            log_likelihood(of_fold, known.labels[place]) for of_fold, place in zip(logits, places)
        ]  # (T,) each
        whole.note(setting, total(likelihoods))
        for part, one in enumerate(without):
            one.note(setting, total(likelihoods[:part] + likelihoods[part + 1 :]))
        note()
        if whole.is_found and all(one.is_found for one in without):
            break
    return tried, whole, without


def total(likelihoods: Sequence[Tensor]) -> Tensor:
    """The sum (T,) of log-likelihoods (T,), in their order."""
    first, *others = likelihoods
    return sum(others, start=first)


def temperature_of(
    logits: Sequence[Tensor], labels: Tensor, places: Sequence[Tensor], folds: Sequence[int]
) -> float:
    """The temperature that is best for some of the folds.

    Args:
        logits, places: of each fold, see ``search``; labels: (N,), of all pictures.
    """
    chosen = torch.cat([logits[fold] for fold in folds])
    return best_temperature(chosen, torch.cat([labels[places[fold]] for fold in folds]))


def folds(labels: Tensor, number: int, seed: int, groups: Tensor | None = None) -> Tensor:
    """The fold (N,), from 0, of each picture: the pictures of a class are shuffled and dealt to the
    folds in turn. Each class starts where the one before has ended, so that the folds are of equal size.

    Args:
        labels: (N,); groups: (N,), a number for each group, which goes into a fold as a whole, the
            largest first, where the class and then the fold have fewest; a class of one group is
            divided as if each picture were alone. Where groups have pictures of several classes, see
            ``stratified_folds``.

    Raises:
        UserError: such groups leave a class to one fold, whose answers nothing could be fitted for.
    """
    drawn = random.Random(seed).sample(range(len(labels)), len(labels))
    order = sorted(drawn, key=lambda index: int(labels[index]))
    fold = torch.empty(len(labels), dtype=torch.long)
    if groups is None or len(groups.unique()) == len(groups):
        fold[torch.tensor(order)] = torch.arange(len(labels)) % number
        return fold
    if len({*zip(labels.tolist(), groups.tolist())}) > len(groups.unique()):
        truth = F.one_hot(labels).bool().numpy()
        fold = torch.from_numpy(stratified_folds(truth, groups.numpy(), number, seed))
        if alone := [
            label for label in labels.unique() if len(fold[labels == label].unique()) == 1
        ]:
            raise UserError(
                f"all images of the class at place {int(alone[0]) + 1} of the sorted names lie in one fold, since their groups "
                "have images of other classes, too: add images of other groups"
            )
        return fold
    in_fold = [0] * number
    classes = labels.tolist()
    for _, of_label in groupby(order, key=lambda index: classes[index]):  # sorted by their labels
        own = list(of_label)
        members: dict[int, list[int]] = defaultdict(list)
        for index in own:
            members[int(groups[index])].append(index)
        several = [*members.values()] if len(members) > 1 else [[index] for index in own]
        of_class = [0] * number
        for group in sorted(several, key=len, reverse=True):
            counts = [*zip(of_class, in_fold)]
            place = counts.index(min(counts))
            fold[group] = place
            of_class[place] += len(group)
            in_fold[place] += len(group)
    return fold


def stratified_folds(
    truth: numpy.ndarray, groups: numpy.ndarray, number: int, seed: int
) -> numpy.ndarray:
    """The fold (N,), from 0, of each picture: the groups of the rarest label come first, each into the fold
    that lacks most of that label, then the groups of the next; those of no label where there is room (Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification
    of Multi-Label Data", of groups instead of single pictures).

    Args:
        truth: (N, K) bool; groups: (N,), numbers; number: of folds; seed: of the order of groups.
    """
    _, group_of, sizes = numpy.unique(groups, return_inverse=True, return_counts=True)
    order = list(range(len(sizes)))
    random.Random(seed).shuffle(order)
    size = sizes[order]  # (G,)
    counts = numpy.zeros((len(sizes), truth.shape[1]), dtype=int)
    numpy.add.at(counts, group_of, truth)
    counts = counts[order]  # (G, K)
    wanted = numpy.tile(counts.sum(axis=0) / number, (number, 1))  # (F, K), still lacking
    room = numpy.full(number, len(truth) / number)
    fold_of_group = numpy.full(len(sizes), -1)
    while (is_left := fold_of_group < 0).any():
        left = counts[is_left].sum(axis=0)  # (K,)
        if left.any():
            rarest = int(numpy.where(left > 0, left, numpy.inf).argmin())
            having = numpy.flatnonzero(is_left & (counts[:, rarest] > 0)).tolist()
            chosen = sorted(having, key=lambda group: -counts[group, rarest])
        else:
            rarest = 0
            chosen = numpy.flatnonzero(is_left).tolist()
        for group in chosen:
            lack = wanted[:, rarest] if left.any() else room
            fold = max(range(number), key=lambda part: (lack[part], room[part]))
            fold_of_group[group] = fold
            wanted[fold] -= counts[group]
            room[fold] -= size[group]
    return fold_of_group[numpy.argsort(order)][group_of]

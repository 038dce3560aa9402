"""Cross-validation of a classifier of image features on all pictures: each is answered by what was fitted
without it, and what is kept is fitted to all.

Every picture is encoded once. Each fold is answered by the classifier that is fitted to the other folds;
the setting and the temperature of these answers are those that are best for the other folds, so that
a picture's labels play no part in its own answer. What is kept is fitted to all pictures, under the
setting that is best for all folds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.evaluation.prediction import Prediction
from trainers.learners.features import FeatureMethod, MostLikely, Numbers
from trainers.maths.threads import one_thread

from .task import Task


@dataclass(frozen=True)
class FeatureSet:
    """Pictures whose features are known, of any length.

    Attributes:
        views: (R, N, E), what a classifier is fitted to (``FeatureMethod.views_of``).
        shown: (N, E), the pictures as they are tested.
        target: (N,) labels or (N, K) bool (``Task.target``).
        fold: (N,), from 0, of each picture.
    """

    views: Tensor
    shown: Tensor
    target: Tensor
    fold: Tensor


Tried = dict[Numbers, list[Tensor]]  # setting → logits (n, K) of each fold by what has not seen it


@torch.no_grad()
@one_thread()
def cross_fit(
    method: FeatureMethod,
    task: Task,
    known: FeatureSet,
    note: Callable[[], object] = lambda: None,
) -> Prediction:
    """Fit a classifier to all pictures; return the answers to them on the CPU, each by the classifier as it
    was fitted without the picture's fold.

    note: is called after each setting that was tried.
    """
    target = known.target
    fold = known.fold.to(target.device)
    places = [(fold == part).nonzero().flatten() for part in fold.unique()]
    tried, whole, without = search(method, task, known, places, note)
    parts = []
    for part, found in enumerate(without):
        logits = tried[found.setting]
        others = [other for other in range(len(places)) if other != part]
        rest = torch.cat([logits[other] for other in others])
        temperature = task.temperature(rest, target[torch.cat([places[one] for one in others])])
        parts.append(task.answers(logits[part], temperature).cpu())
    order = torch.cat(places)
    answers = Prediction.concatenate(parts).part(order.argsort().cpu())
    method.fit(known.views, target, whole.setting)
    task.calibrate(method, torch.cat(tried[whole.setting]), target[order], answers, target)
    return answers


def search(
    method: FeatureMethod,
    task: Task,
    known: FeatureSet,
    places: Sequence[Tensor],
    note: Callable[[], object],
) -> tuple[Tried, MostLikely, list[MostLikely]]:
    """Try settings until the best for all folds, and the best for all but each of them, are found.

    places: indices of each fold's pictures.

    Returns:
        the logits of all folds under each setting that was tried; the search over all folds; those
        over all but each fold.
    """
    grid = method.grid
    paths = []
    for place in places:
        is_other = torch.ones(len(known.target), dtype=torch.bool, device=place.device)
        is_other[place] = False
        asked = F.normalize(known.shown[place], dim=-1)
        views = known.views[:, is_other]
        paths.append(method.held_out_logits(views, known.target[is_other], asked, grid.settings))
    whole = MostLikely(grid)
    without = [MostLikely(grid) for _ in places]
    tried: Tried = {}
    for setting, *logits in zip(grid.settings, *paths):
        tried[setting] = logits
        likelihoods = [
            task.log_likelihood(of_fold, known.target[place])
            for of_fold, place in zip(logits, places)
        ]  # (T,) each
        whole.add(setting, total(likelihoods))
        for part, one in enumerate(without):
            one.add(setting, total(likelihoods[:part] + likelihoods[part + 1 :]))
        note()
        if whole.is_found and all(one.is_found for one in without):
            break
    return tried, whole, without


def total(likelihoods: Sequence[Tensor]) -> Tensor:
    """Return the sum (T,) of log-likelihoods (T,), in their order."""
    first, *others = likelihoods
    return sum(others, start=first)

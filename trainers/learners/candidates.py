"""Trainers that are fitted to the frozen CLIP's image features in seconds: their settings, and an
answer to each training image by what has not seen it, come of one cross-validation.

Every image is encoded once. Each fold is held out from a fit to the others; the settings are those
that are best for all held-out images, and what is kept is fitted to all images under them.
"""

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from ..evaluation.prediction import Prediction
from ..maths.threads import one_thread
from .features import FilledMethod, HeldOut, Setting, answers_at, best_temperature

# what can be tested on the images that it is trained on, in folds
CANDIDATES = ("ZeroshotCLIP", "GDA", "TipAdapter", "LinearProbe")
TAKEN = "LinearProbe"  # where nobody says which; chosen with experiments/compare_candidates.py
FOLDS = 5


@dataclass(frozen=True)
class Known:
    """Pictures whose features are known, of any length.

    Attributes:
        views: (R, N, E), what a method is filled with, see ``FilledMethod.views_of``.
        shown: (N, E), the pictures as they are tested; labels: (N,).
        groups: (N,), a number for each group of pictures that look alike; None: each is alone.
    """

    views: Tensor
    shown: Tensor
    labels: Tensor
    groups: Tensor | None = None

    def part(self, chosen: Tensor) -> "Known":
        """Some of the pictures; chosen: (n,) indices, or (N,) bool."""
        groups = None if self.groups is None else self.groups[chosen.cpu()]
        return Known(self.views[:, chosen], self.shown[chosen], self.labels[chosen], groups)


@torch.no_grad()
@one_thread()
def cross_fit(
    method: FilledMethod, known: Known, seed: int, note: Callable[[], object] = lambda: None
) -> Prediction:
    """Fits a method to known pictures, under the settings that are best for pictures which it was not
    filled with.

    Args:
        seed: of the division into folds; note: is called before each fit.

    Returns:
        the answers to the pictures on the CPU, each by the method as it was filled without the
        picture's fold, under the settings that are best for the other folds.
    """
    fold = folds(known.labels.cpu(), FOLDS, seed, known.groups).to(known.labels.device)
    held_out = []
    places = []
    for number in fold.unique():
        rest = known.part(fold != number)
        method.fill(rest.views, rest.labels)
        place = (fold == number).nonzero().flatten()
        asked = known.part(place)
        under = noting(method.under(F.normalize(asked.shown, dim=-1)), note)
        held_out.append(HeldOut(under, asked.labels))
        places.append(place)
    answers = []
    for number, part in enumerate(held_out):
        others = held_out[:number] + held_out[number + 1 :]
        setting = method.best(others)
        temperature = best_temperature(setting, others)
        answers.append(answers_at(part.under(setting), temperature).cpu())
    note()
    method.fill(known.views, known.labels)
    method.choose(held_out)
    return Prediction.concatenate(answers).part(torch.cat(places).argsort().cpu())


def noting(
    under: Callable[[Setting], Tensor], note: Callable[[], object]
) -> Callable[[Setting], Tensor]:
    """The same function, each of whose calls is noted."""

    def noted(setting: Setting) -> Tensor:
        note()
        return under(setting)

    return noted


def folds(labels: Tensor, number: int, seed: int, groups: Tensor | None = None) -> Tensor:
    """The fold (N,), from 0, of each picture: the pictures of a class go round the folds in a drawn
    order, each class starting where the one before has ended, so that folds are of equal size.

    Args:
        labels: (N,); groups: (N,), a number for each group, which goes into a fold as a whole, the
            largest first, where the class and then the fold have fewest; a class of one group is
            divided as if each picture were alone.
    """
    drawn = random.Random(seed).sample(range(len(labels)), len(labels))
    order = sorted(drawn, key=lambda index: int(labels[index]))
    fold = torch.empty(len(labels), dtype=torch.long)
    if groups is None or len(groups.unique()) == len(groups):
        fold[torch.tensor(order)] = torch.arange(len(labels)) % number
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

"""Trainers that are fitted to the frozen CLIP's image features in seconds, and the folds in which they
are tested on the images that they are fitted to; see ``FilledMethod.cross_fit``."""

import random
from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

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

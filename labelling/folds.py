"""Folds of pictures of one label per picture."""

import random
from collections import defaultdict
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.common.errors import UserError

from .parts import stratified_folds


def folds(labels: Tensor, number: int, seed: int, groups: Tensor | None = None) -> Tensor:
    """Return the fold (N,), from 0, of each picture: the pictures of a class are shuffled and dealt to the
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

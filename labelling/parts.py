"""Division of pictures into train, val and test where the user has not done it, and into folds; sampling.

Pictures of one label are divided class by class into 50 % train, 20 % val and 30 % test. Multi-label
pictures are divided in the same shares so that each part has its share of every label. Where there is no
``test``, ``val`` is tested on, and a fifth of ``train`` validates. The division follows from names, labels
and groups, and not from the run's seed, so that all seeds, and tests of their prompts, have the same
test pictures.
"""

import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import groupby

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.common.errors import UserError
from trainers.common.fingerprints import split_hash
from trainers.data.class_folders import LEAST_IMAGES, Files, divide, lists_with_labels
from trainers.data.fewshot import VALIDATION_SHOTS, FewShot
from trainers.data.lists import PARTS, Image, Lists

from .readers.rows import BETWEEN, WHOLE
from .table import Table

WITHOUT_TEST = 0.8, 0.2  # shares of train and val where other images are for testing
TENTHS = {"test": 3, "val": 2, "train": 5}  # of multi-label pictures in each part
TENTHS_WITHOUT_TEST = {"val": 2, "train": 8}

Numbers = Mapping[str, Hashable]  # path → the group of pictures that are not divided


def files_of(table: Table) -> dict[str, Files]:
    """Return part → class folder → paths, of pictures of one label."""
    paths: dict[tuple[str, int], list[str]] = defaultdict(list)
    for path, (label,), part in zip(table.paths, table.labels, table.parts):
        paths[part, label].append(path)
    files: dict[str, Files] = {}
    for part in (WHOLE, *PARTS):
        if part in table.parts:
            of_part = {name: paths[part, label] for label, name in enumerate(table.folders)}
            files[part] = {name: own for name, own in of_part.items() if own}
    return files


def single_label_lists(table: Table, groups: Numbers | None = None) -> Lists:
    """Return train, val and test of pictures of one label.

    groups: without, each picture is alone.
    """
    files = files_of(table)
    parts = {**files}
    if WHOLE in files:
        parts = divide(table.place, files[WHOLE], groups)
    elif "test" not in files:
        parts = divide(table.place, files["train"], groups, WITHOUT_TEST)
        parts["test"] = files["val"]
    known = dict(zip(table.folders, table.classnames))
    names = {name: known[name] for name in parts["train"]}
    return lists_with_labels(table.place, parts, names)


def multi_label_lists(table: Table, groups: Numbers | None = None) -> Lists:
    """Return train, val and test of multi-label pictures (``single_label_lists``)."""
    items = multi_label_items(table)
    lists: dict[str, list[Image]] = {part: [] for part in PARTS}
    for item, part in zip(items, table.parts):
        if part != WHOLE:
            lists[part].append(item)
    shares = TENTHS
    undivided = WHOLE
    if table.is_divided:
        if lists["test"]:
            return tuple(lists.values())
        lists["test"] = lists["val"]
        lists["val"] = []
        shares = TENTHS_WITHOUT_TEST
        undivided = "train"
        lists["train"] = []
    places = [place for place, part in enumerate(table.parts) if part == undivided]
    own = [items[place] for place in places]
    for item, part in zip(own, stratify(table.truth[places], own, groups, shares)):
        lists[part].append(item)
    return tuple(lists.values())


def stratify(
    truth: numpy.ndarray, items: Sequence[Image], groups: Numbers | None, shares: Mapping[str, int]
) -> list[str]:
    """Return the part of each of N pictures, so that parts have these tenths of every label.

    truth: (N, K), bool.
    """
    known = groups or {}
    number: dict[Hashable, int] = {}
    of = [number.setdefault(known.get(item.impath, item.impath), len(number)) for item in items]
    fold = stratified_folds(truth, numpy.array(of), sum(shares.values()), seed=0)
    part_of_fold = [part for part, tenths in shares.items() for _ in range(tenths)]
    return [part_of_fold[one] for one in fold]


def multi_label_items(table: Table) -> list[Image]:
    """Return multi-label pictures as items, whose class is their set of labels."""
    sets = sorted({*table.labels})
    number = {own: place for place, own in enumerate(sets)}
    names = {}
    for own in sets:
        names[own] = BETWEEN.join(table.classnames[label] for label in own)
    return [Image(path, number[own], names[own]) for path, own in zip(table.paths, table.labels)]


def stratified_folds(
    truth: numpy.ndarray, groups: numpy.ndarray, number: int, seed: int
) -> numpy.ndarray:
    """Return the fold (N,), from 0, of each picture: the groups of the rarest label come first, each into
    the fold that lacks most of that label, then the groups of the next; those of no label where there is
    room (Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data", of groups
    instead of single pictures).

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
            rarest = int(numpy.argmin(numpy.where(left > 0, left, numpy.inf)))
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


# ---- few-shot samples of multi-label pictures ----


def draw_sample(shots: int, seed: int, lists: Lists, truth: Mapping[str, numpy.ndarray]) -> FewShot:
    """Return a sample with ``shots`` training pictures of each label, and as many of none; all pictures
    where ``shots`` is below 1.

    Args:
        lists: train, val, which may be the test itself, and test; truth: path → (K,) bool.
    """
    train, val, test = lists
    if shots < 1:
        return FewShot(train, val, test, val, None)
    few = of_each_label(train, truth, shots, seed)
    few_val = val
    if val is not test:
        few_val = of_each_label(val, truth, min(shots, VALIDATION_SHOTS), seed)
    sample = {"hash": split_hash(few, few_val, ()), "origin": f"drawn with seed {seed}"}
    return FewShot(few, few_val, test, val, sample)


def of_each_label(
    items: Sequence[Image], truth: Mapping[str, numpy.ndarray], shots: int, seed: int
) -> list[Image]:
    """Return the items of which each label has at least ``shots`` pictures, or all that there are, in their
    order: those of the rarest label are drawn first, and count for their other labels, too."""
    drawn = random.Random(seed).sample(items, len(items))
    has = numpy.array([truth[item.impath] for item in drawn]).reshape(len(drawn), -1)  # (N, K)
    is_taken = numpy.zeros(len(drawn), bool)
    for label in numpy.argsort(has.sum(axis=0), kind="stable"):
        lacking = shots - int(has[is_taken, label].sum())
        free = numpy.flatnonzero(has[:, label] & ~is_taken)
        is_taken[free[: max(lacking, 0)]] = True
    without = numpy.flatnonzero(~has.any(axis=1))
    is_taken[without[:shots]] = True
    chosen = {item.impath for item, taken in zip(drawn, is_taken) if taken}
    return [item for item in items if item.impath in chosen]


def too_small(table: Table) -> list[int]:
    """Return the labels of undivided pictures of one label that have too few to be divided."""
    if table.is_divided:
        return []
    sizes = numpy.bincount([label for (label,) in table.labels], minlength=len(table.folders))
    small: list[int] = numpy.flatnonzero(sizes < LEAST_IMAGES).tolist()
    return small

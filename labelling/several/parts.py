"""Which pictures belong together, and the folds: groups stay whole, and each label is spread evenly.

References:
    - Sechidis, Tsoumakas and Vlahavas (2011), "On the Stratification of Multi-Label Data": iterative
      stratification, here of groups instead of single pictures.
"""

import random
from collections.abc import Sequence

import numpy

from trainers.common.image_files import Seen

from ..folders.look_alikes import groups_of


def joined_groups(seen: Sequence[Seen], named: Sequence[str]) -> numpy.ndarray:
    """The number (N,) of each picture's group, from 0: pictures that look alike belong together, and
    those of a group that has a name.

    Args:
        seen: of N pictures; named: N names of groups, "" for none.
    """
    from scipy.sparse import coo_array  # here: it takes a second
    from scipy.sparse.csgraph import connected_components

    number = len(seen)
    alike = groups_of([picture.coarse for picture in seen], [0] * number)
    first: dict[str, int] = {}
    by_name = [first.setdefault(name, place) if name else place for place, name in enumerate(named)]
    rows = [*range(number), *range(number)]
    graph = coo_array((numpy.ones(2 * number), (rows, [*alike, *by_name])), (number, number))
    _, groups = connected_components(graph, directed=False)
    return numpy.array(groups, dtype=int)


def stratified_folds(
    truth: numpy.ndarray, groups: numpy.ndarray, number: int, seed: int
) -> numpy.ndarray:
    """The fold (N,), from 0, of each picture: the groups of the rarest label come first, each into the fold
    that lacks most of that label, then the groups of the next; those of no label where there is room.

    Args:
        truth: (N, K) bool; groups: (N,), numbers; number: of folds; seed: of the order of groups.
    """
    names = numpy.unique(groups).tolist()
    random.Random(seed).shuffle(names)
    size = numpy.array([(groups == name).sum() for name in names])
    counts = numpy.array([truth[groups == name].sum(axis=0) for name in names])  # (G, K)
    wanted = numpy.tile(counts.sum(axis=0) / number, (number, 1))  # (F, K), still lacking
    room = numpy.full(number, len(truth) / number)
    fold_of_group = numpy.full(len(names), -1)
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
    by_name = dict(zip(names, fold_of_group.tolist()))
    return numpy.array([by_name[name] for name in groups.tolist()])

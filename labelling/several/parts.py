"""Which pictures belong together."""

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

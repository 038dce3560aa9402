"""Which pictures of a class look alike: copies, a picture in another size or format, and the shots of
a burst or the frames of a film.

They are compared from afar, see ``image_files.look``, and blurred. Each picture is held against those
that are nearest to it: one step of registration takes away what a hand that moves and another light
change, and what is left is compared with what the picture shows. Groups are what is connected so.

Tests, choices and promises count only pictures unlike every training picture, and one of several that
look alike: see ``Images.are_independent``.

References:
    - Baker and Matthews (2004), "Lucas-Kanade 20 Years On: A Unifying Framework", §3.2: the inverse
      compositional step, here of shift, scale, rotation, contrast and the light of each channel.
"""

from collections.abc import Iterator, Sequence
from typing import NoReturn

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from trainers.common.image_files import COARSE
from trainers.maths.threads import one_thread

# The share of what a picture shows, up to which the rest of a difference is none. experiments/bursts.py
# measures what is found and what is taken for alike.
ALIKE = 0.1
HOPELESS = 0.6  # of what it shows: one step of registration does not bring that below ``ALIKE``
LIGHT = 50  # of 255: pictures whose mean differs by more in a channel show another light or colour
FAINT = 0.5  # of 255: what a picture shows less than that is noise
BLUR = 1.2  # coarse pixels: the step follows shifts of about twice that
# how far a hand moves between two shots: coarse pixels to the right and down, scale, and radians
MOST = (2.0, 2.0, 0.15, 0.15)
NEAREST = 8  # pictures that each is held against: a burst of more is found along its chain
FAR = 0.7  # distance in [0, 2] of two patterns, beyond which they are not held against one another
CELL = 3  # coarse pixels of a side of a cell of a pattern
TILE = 2**23  # numbers of a block of distances: 32 MB
ROWS = 64  # pictures that are held against their nearest at a time: 15 MB


@torch.no_grad()
def groups_of(seen: Sequence[numpy.ndarray | None], labels: Sequence[int]) -> list[int]:
    """The number of each picture's group: where the first picture that looks like it, or like one
    that does, is in the list. A picture that was not seen is alone.

    Args:
        seen: (3 · ``COARSE``²,) each, see ``image_files.Seen``; None for what can't be read.
        labels: the class of each; pictures of two classes that look alike show fine differences.
    """
    group = list(range(len(seen)))
    classes: dict[int, list[int]] = {}
    for place, (shown, label) in enumerate(zip(seen, labels)):
        if shown is not None:
            classes.setdefault(label, []).append(place)
    with tqdm(
        total=sum(map(len, classes.values())),
        desc="looking for copies",
        unit="image",
        delay=2,
        dynamic_ncols=True,
    ) as progress:
        for places in classes.values():
            shown = numpy.stack([seen[place] for place in places])  # type: ignore[misc]
            for place, first in zip(places, in_class(shown, progress)):
                group[place] = places[first]
    return group


@one_thread()
def in_class(shown: numpy.ndarray, progress: "tqdm[NoReturn]") -> list[int]:
    """The groups of N pictures (N, 3 · ``COARSE``²) of a class, see ``groups_of``."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    different, copy_of = numpy.unique(shown, axis=0, return_inverse=True)
    images = blurred(different)  # (U, 3, C, C)
    linked = torch.cat([torch.empty(0, 2, dtype=torch.long), *links(images, progress)])  # (P, 2)
    number = len(images)
    graph = coo_array((numpy.ones(len(linked), bool), linked.T.numpy()), (number, number))
    _, component = connected_components(graph, directed=False)
    progress.update(len(shown) - number)
    component = component[copy_of.ravel()]  # (N,)
    _, first, group = numpy.unique(component, return_index=True, return_inverse=True)
    places: list[int] = first[group].tolist()
    return places


def window() -> Tensor:
    """(C, C): how much a place counts, less towards the edges, where pictures of a burst end
    elsewhere."""
    side = torch.sin(torch.pi * (torch.arange(COARSE) + 0.5) / COARSE)
    return side.outer(side).sqrt()


def blurred(shown: numpy.ndarray) -> Tensor:
    """Pictures (N, 3 · ``COARSE``²) as (N, 3, C, C), blurred."""
    from scipy.ndimage import gaussian_filter1d

    images = shown.reshape(-1, COARSE, COARSE, 3).transpose(0, 3, 1, 2).astype(numpy.float32)
    for axis in (2, 3):
        images = gaussian_filter1d(images, BLUR, axis, mode="nearest")
    return torch.from_numpy(images)


def mean_light(images: Tensor) -> Tensor:
    """(…, 3, 1, 1) of images (…, 3, C, C)."""
    weight = window().square()
    return (images * weight).sum((-2, -1), keepdim=True) / weight.sum()


def links(images: Tensor, progress: "tqdm[NoReturn]") -> Iterator[Tensor]:
    """Pairs (P, 2) of images (N, 3, C, C) that look alike, block by block; a pair may come twice."""
    number = len(images)
    pattern = F.avg_pool2d((images - mean_light(images)) * window(), CELL).flatten(1)
    pattern = F.normalize(pattern, dim=1)  # (N, D)
    for places in torch.arange(number).split(max(1, TILE // number)):
        similar = pattern[places] @ pattern.T  # (B, N)
        similar[torch.arange(len(places)), places] = -torch.inf
        cosine, nearest = similar.topk(min(NEAREST, number))  # (B, K)
        is_near = cosine >= 1 - FAR**2 / 2
        rows = is_near.any(dim=1).nonzero().flatten()
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            share = difference(images[places[some]], images[nearest[some]])
            row, column = ((share <= ALIKE) & is_near[some]).nonzero(as_tuple=True)
            yield torch.stack([places[some][row], nearest[some][row, column]], dim=1)
        progress.update(len(places))


def difference(images: Tensor, others: Tensor) -> Tensor:
    """What is left of the difference of others (N, K, 3, C, C) from images (N, 3, C, C), when those are
    moved and lit like these, as a share (N, K) of what they show; infinite where that takes another
    light or a larger motion."""
    light = mean_light(images)  # (N, 3, 1, 1)
    other_light = mean_light(others)  # (N, K, 3, 1, 1)
    shows = energy(images - light)[:, None].minimum(energy(others - other_light))  # (N, K)
    shows = shows + FAINT**2 * images[0].numel()
    changes = directions(images)  # (N, 8, D)
    metric = changes @ changes.transpose(1, 2)  # (N, 8, 8)
    size = metric.diagonal(dim1=1, dim2=2)
    metric = metric + torch.diag_embed(1e-3 * size + 1)  # of a picture without edges, too

    @one_thread()
    def explained(moved: Tensor) -> tuple[Tensor, Tensor]:
        """The changes (N, K, 8) that explain a difference best, and the share (N, K) that is left."""
        rest = ((moved - images[:, None]) * window()).flatten(2)  # (N, K, D)
        along = torch.linalg.solve(metric, changes @ rest.transpose(1, 2)).transpose(1, 2)
        left = (rest - along @ changes).square().sum(2)
        return along, (left / shows).sqrt()

    along, share = explained(others)
    motion = -along[..., :4]  # (N, K, 4)
    is_other = (motion.abs() > torch.tensor(MOST)).any(dim=2)
    is_other |= (light[:, None] - other_light).abs().amax((2, 3, 4)) > LIGHT
    is_open = (share > ALIKE) & (share <= HOPELESS) & ~is_other
    if is_open.any():
        moved = others.clone()
        moved[is_open] = moved_by(others[is_open], motion[is_open])
        share = explained(moved)[1]
    return share.masked_fill(is_other, torch.inf)


def energy(images: Tensor) -> Tensor:
    """The square (…) of what images (…, 3, C, C) show."""
    return (images * window()).square().sum((-3, -2, -1))


def directions(images: Tensor) -> Tensor:
    """(N, 8, D): how images (N, 3, C, C) change to first order when they are shifted to the right and
    down, enlarged, turned, given more contrast, and more light in each channel."""
    down, right = torch.gradient(images, dim=(2, 3))
    place = torch.arange(COARSE) - (COARSE - 1) / 2
    x = place[None, :]
    y = place[:, None]
    lights = [
        torch.ones_like(images) * channel[:, None, None] for channel in torch.eye(images.shape[1])
    ]
    changes = [
        right,
        down,
        x * right + y * down,
        x * down - y * right,
        images - mean_light(images),
        *lights,
    ]
    return torch.stack([(change * window()).flatten(1) for change in changes], dim=1)


def moved_by(images: Tensor, motion: Tensor) -> Tensor:
    """Images (N, 3, C, C) moved by (N, 4): to the right and down in coarse pixels, the scale less 1,
    the angle in radians."""
    right, down, scale, angle = motion.unbind(1)
    across = torch.stack([1 + scale, -angle, 2 * right / COARSE], dim=1)
    along = torch.stack([angle, 1 + scale, 2 * down / COARSE], dim=1)
    affine = torch.stack([across, along], dim=1)  # (N, 2, 3)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

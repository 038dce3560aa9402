"""Search for pictures of a class that look alike: copies, a picture in another size or format, mirrored, turned or
with black boxes in it, and the shots of a burst or the frames of a film.

Pictures are compared as small, blurred thumbnails (``image_files.thumbnails_of``). Each one is compared with
its nearest ones under each of ``VIEWS``: a few steps of registration remove differences of place and light,
and two pictures are nearly alike if the rest is a small share of their contrast. They look alike if that is so,
too, after further steps on thumbnails of twice the side, in grey. Groups are the connected components. Black
areas are taken for covers and are not compared.

Pictures without detail, such as one shape on a plain ground, are as like one another as copies are once
they are registered: two of them are one only if they are equal under the eight symmetries, but for what
JPEG changes.

The shots of a burst all look like one another, or nearly so. Where many pictures look like some of their
group and not even nearly like the rest of it, the search has found only a part of the near-duplicates.

Evaluation, choices and promises count only groups without training pictures, and each group as one: the
mean of its pictures (``threshold.Held``).

References:
    - Baker and Matthews (2004), "Lucas-Kanade 20 Years On: A Unifying Framework", §3.2: the inverse
      compositional step, here of shift, scale, rotation, contrast and the light of each channel.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from trainers.common.image_files import COARSE, FINE, PictureFacts
from trainers.maths.threads import one_thread

# Shares of their contrast by which two pictures differ, at most. experiments/copies.py measures the found copies
# and the mistakes.
NEARLY = 0.2  # coarse thumbnails of pictures that are nearly alike
CLOSE = 0.1  # the same of pictures that look alike, if one of them has less detail than ``RICH``
ALIKE = 0.12  # fine thumbnails of pictures that look alike
RICH = 0.3  # share of a picture that has detail (``detail``)
# steps of registration of coarse thumbnails, and the difference that further steps do not bring below ``NEARLY``
STAGES = ((1, 0.6), (1, 0.4), (2, NEARLY))
FURTHER = 2  # steps of registration of fine thumbnails
PLAIN = 0.2  # share of a plain picture that has detail (``detail``), at most: as ``ALIKE``
EQUAL = 0.08  # share of contrast: two plain pictures that differ by more are two
SLIGHT = 1.0  # of 255: a step between two coarse pixels that is no detail
LIGHT = 50  # of 255: pictures whose mean differs by more in a channel show another light or colour
FAINT = 0.5  # of 255: what a picture shows less than that is noise
BLUR = 1.2  # pixels: the step follows shifts of about twice that
TILT = math.radians(15)  # of saved augmentations; the step follows what lies between
SHIFT = 4.0  # coarse pixels, of a camera that pans; the step follows two more and two less
NEAREST = 8  # pictures that each is held against: a burst of more is found along its chain
FAR = 0.8  # distance in [0, 2] of two patterns, beyond which they are not held against one another
CELL = 3  # coarse pixels of a side of a cell of a pattern
BLACK = 8  # of 255: a cover's light is at most that in each channel
SOLID = 2  # coarse pixels of a side: what is black and smaller than that square is a line
DARK = 1 / 3  # share of a picture: one that is black in more of it has no covers
# Share of the pictures that are partial (``LookAlikes``), up to which what belongs together is found:
# experiments/promises.py measures what promises hold.
MOST_PARTIAL = 0.03
LEAST = 0.5  # share of two pictures that has to be left to compare
TILE = 2**23  # numbers of a block of distances: 32 MB
BLOCK = 1024  # pictures that are prepared, and pairs that are compared, at a time: 40 MB
PAIRS = 32  # pairs that are registered at a time: 2 MB, which stay in a core's cache


class LookAlikes(NamedTuple):
    """The groups found among N pictures.

    Attributes:
        groups: the number of each picture's group, which is the place of the group's first picture. An
            unreadable picture is alone.
        is_partial: whether each picture looks like some of its group, but not even nearly like all of it,
            or like ``NEAREST`` of a large one. None is in a group with a plain picture.
    """

    groups: list[int]
    is_partial: list[bool]


@torch.no_grad()
def look_alikes(seen: Sequence[PictureFacts | None], labels: Sequence[int]) -> LookAlikes:
    """Find the pictures of a class that look alike.

    Args:
        seen: the facts of each; one that can't be read, or None, is alone.
        labels: the class of each; only pictures of one class are compared.
    """
    found = LookAlikes([*range(len(seen))], [False] * len(seen))
    thumbnails: dict[int, tuple[numpy.ndarray, numpy.ndarray]] = {}  # of each place
    classes: dict[int, list[int]] = {}
    for place, (facts, label) in enumerate(zip(seen, labels)):
        if facts is not None and facts.coarse is not None and facts.fine is not None:
            thumbnails[place] = (facts.coarse, facts.fine)
            classes.setdefault(label, []).append(place)
    with tqdm(
        total=sum(map(len, classes.values())),
        desc="looking for copies",
        unit="image",
        delay=2,
        dynamic_ncols=True,
    ) as progress:
        for places in classes.values():
            in_it = in_class([thumbnails[place] for place in places], progress.update)
            for place, first, is_partial in zip(places, *in_it):
                found.groups[place] = places[first]
                found.is_partial[place] = is_partial
    return found


def share_partial(partial: int, images: int) -> float:
    """Return the share of partial images, if it is large enough to show that copies were missed, else 0."""
    share = partial / images
    return share if share > MOST_PARTIAL else 0.0


@one_thread()
def in_class(
    thumbnails: Sequence[tuple[numpy.ndarray, numpy.ndarray]], note: Callable[[int], object]
) -> LookAlikes:
    """Search among N pictures of a class.

    Args:
        thumbnails: the coarse one (3 · ``COARSE``²,) and the fine one (``FINE``²,) of each; note: is told how many
            were compared with the others.
    """
    different, copy_of = numpy.unique(
        numpy.stack([numpy.append(*of_picture) for of_picture in thumbnails]),
        axis=0,
        return_inverse=True,
    )
    coarse, grey = torch.from_numpy(different).split((3 * COARSE**2, FINE**2), dim=1)
    every = torch.arange(len(different))
    images = torch.empty(len(every), 4, COARSE, COARSE)
    share = torch.empty(len(every))
    for places in every.split(BLOCK):
        images[places], share[places] = softened_coarse(coarse[places])
    fine = grey.unflatten(1, (1, FINE, FINE))
    pairs, are_alike = compared(images, fine, share, every, every, note)
    component = connected(pairs[are_alike], len(images))
    # pictures of a large group see only one another: its first one is compared with those of other groups
    firsts = torch.from_numpy(numpy.unique(component, return_index=True)[1])
    large = firsts[component.bincount() > NEAREST]
    if len(large):
        more, more_alike = compared(images, fine, share, large, firsts)
        pairs = torch.cat([pairs, more])
        are_alike = torch.cat([are_alike, more_alike])
        component = connected(pairs[are_alike], len(images))
    note(len(thumbnails) - len(images))
    within = component[pairs[:, 0]] == component[pairs[:, 1]]
    linked = pairs[within].sort(dim=1).values.unique(dim=0)
    number = linked.flatten().bincount(minlength=len(images))  # (U,), of those it looks like
    others = component.bincount()[component] - 1
    is_partial = number < others.clamp(max=NEAREST)
    is_partial &= ~torch.isin(component, component[share <= PLAIN])
    group_of = component[torch.from_numpy(copy_of.ravel())].numpy()
    _, first, group = numpy.unique(group_of, return_index=True, return_inverse=True)
    return LookAlikes(first[group].tolist(), is_partial[copy_of.ravel()].tolist())


def connected(pairs: Tensor, number: int) -> Tensor:
    """Return the connected component (N,) of each picture; pairs: (P, 2), of linked pictures."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((numpy.ones(len(pairs), bool), pairs.T.numpy()), (number, number))
    _, component = connected_components(graph, directed=False)
    return torch.from_numpy(component).long()


def views() -> Tensor:
    """Return V affine maps (V, 2, 3) of copies (``moved_by``): by quarter turns and by ``TILT`` to both sides,
    each mirrored or not, and by ``SHIFT`` to each side."""
    turns = [0.0, math.pi / 2, math.pi, -math.pi / 2, TILT, -TILT]
    angles = torch.tensor(turns).repeat(2)
    mirrors = torch.tensor([1.0, -1.0]).repeat_interleave(len(turns))
    across = torch.stack([angles.cos() * mirrors, -angles.sin()], dim=1)
    along = torch.stack([angles.sin() * mirrors, angles.cos()], dim=1)
    turned = F.pad(torch.stack([across, along], dim=1), (0, 1))
    ways = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    upright = torch.eye(2).expand(len(ways), 2, 2)
    shifted = torch.cat([upright, 2 * SHIFT / COARSE * ways[..., None]], dim=2)
    return torch.cat([turned, shifted])


VIEWS = views()


def window(pixels: int) -> Tensor:
    """Return the weight (C, C) of each place of a picture of C pixels a side; it is less towards the edges, which
    differ within a burst."""
    side = torch.sin(torch.pi * (torch.arange(pixels) + 0.5) / pixels)
    return side.outer(side).sqrt()


def uncovered(light: Tensor) -> Tensor:
    """Return which pixels of pictures (N, 3, C, C) are known, (N, 1, C, C): 0 where one is covered, else 1."""
    black = (light.amax(dim=1, keepdim=True) <= BLACK).float()
    # outside of the picture, too, so that a corner is one
    beyond = F.pad(black, (SOLID - 1,) * 4, value=1.0)
    solid = F.max_pool2d(-F.max_pool2d(-beyond, SOLID, 1), SOLID, 1)
    edged = F.max_pool2d(solid, 3, 1, 1)  # with the pixels that are covered in part
    is_light = edged.mean(dim=(1, 2, 3), keepdim=True) <= DARK
    return 1 - edged * is_light


def softened_coarse(coarse: Tensor) -> tuple[Tensor, Tensor]:
    """Return coarse thumbnails (N, 3 · C²), uint8, as images (N, 4, C, C) (``softened``), and the share (N,) of each that
    has detail."""
    light = coarse.unflatten(1, (COARSE, COARSE, 3)).permute(0, 3, 1, 2).float()
    known = uncovered(light)
    # black boxes hide a photograph's detail, and are that of a drawing
    share = detail(light, known).maximum(detail(light, torch.ones_like(known)))
    known[share <= PLAIN] = 1.0  # what is black in them is what they show
    return softened(light, known), share


def detail(light: Tensor, known: Tensor) -> Tensor:
    """Return the share (N,) of the known pixels (N, 1, C, C) of pictures (N, 3, C, C) that have detail: the squared
    mean of the light's slope over the mean of its square.

    That is the share of pixels with a slope where all of these have the same. The mean slope is taken away first,
    as a sky has one.
    """
    whole = -F.max_pool2d(-known, 3, 1, 1)  # (N, 1, C, C); their neighbours are known, too
    number = whole.sum((2, 3), keepdim=True).clamp(min=1)
    slopes = torch.cat(torch.gradient(light, dim=(2, 3)), dim=1)  # (N, 6, C, C)
    mean = (slopes * whole).sum((2, 3), keepdim=True) / number
    square = ((slopes - mean) * whole).square().sum(1).flatten(1)  # (N, C²)
    number = number.flatten()
    return (square.sqrt().sum(1) / number).square() / (square.sum(1) / number + SLIGHT**2)


def blurred(images: Tensor) -> Tensor:
    """Return images (…, C, C) blurred."""
    from scipy.ndimage import gaussian_filter1d

    for axis in (-2, -1):
        images = torch.from_numpy(gaussian_filter1d(images.numpy(), BLUR, axis, mode="nearest"))
    return images


def softened(light: Tensor, known: Tensor) -> Tensor:
    """Return the light (N, L, C, C) of pictures, blurred, and which pixels are known (N, 1, C, C), as
    (N, L + 1, C, C)."""
    soft = blurred(light * known) / blurred(known).clamp(min=1e-3)
    return torch.cat([soft, known], dim=1)


def mean_light(light: Tensor, weight: Tensor) -> Tensor:
    """Return the mean (N, L, 1, 1) of light (N, L, C, C), weighted by the square of (N, 1, C, C)."""
    square = weight.square()
    total = square.sum((-2, -1), keepdim=True).clamp(min=1e-6)
    return (light * square).sum((-2, -1), keepdim=True) / total


def pattern(images: Tensor) -> Tensor:
    """Return a descriptor (N, D), of length one, of images (N, 4, C, C): their light in cells."""
    light = images[:, :3]
    weight = window(images.shape[-1]) * images[:, 3:]
    cells = F.avg_pool2d((light - mean_light(light, weight)) * weight, CELL)
    return F.normalize(cells.flatten(1), dim=1)


def compared(
    images: Tensor,
    fine: Tensor,
    detailed: Tensor,
    some: Tensor,
    others: Tensor,
    note: Callable[[int], object] = lambda number: None,
) -> tuple[Tensor, Tensor]:
    """Compare some of images (N, 4, C, C) with the nearest of others.

    Args:
        fine: (N, 1, F, F), the same in grey; detailed: (N,), the share of each that has detail; some, others: places,
            ascending, of which all of the first are among the second; note: is told how many were compared.

    Returns:
        The pairs (P, 2) that are nearly alike, each once or twice, and whether they look alike (P,).
    """
    pairs, view = candidates(images, some, others)
    near = [torch.empty(0, 2, dtype=torch.long)]
    alike = [torch.empty(0, dtype=torch.bool)]
    done = 0  # of some
    for start in range(0, len(pairs), BLOCK):
        pair = pairs[start : start + BLOCK]
        way = VIEWS[view[start : start + BLOCK]]
        least = detailed[pair].amin(dim=1)
        has_detail = least > PLAIN
        is_near = torch.empty(len(pair), dtype=torch.bool)
        is_alike = torch.empty(len(pair), dtype=torch.bool)
        equal = are_equal(images, pair[~has_detail], way[~has_detail])
        is_near[~has_detail] = equal
        is_alike[~has_detail] = equal
        most = torch.where(least > RICH, NEARLY, CLOSE)
        is_near[has_detail], is_alike[has_detail] = after_registration(
            images, fine, pair[has_detail], way[has_detail], most[has_detail]
        )
        near.append(pair[is_near])
        alike.append(is_alike[is_near])
        reached = int(torch.searchsorted(some, pair[-1, 1]))
        note(reached - done)
        done = reached
    note(len(some) - done)
    return torch.cat(near), torch.cat(alike)


def candidates(images: Tensor, some: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Pair some of images (N, 4, C, C) with the ``NEAREST`` of others whose patterns are nearest to theirs in any view.

    some, others: as in ``compared``.

    Returns:
        The pairs (P, 2), ordered by the second ones, which are of some, and the number (P,) of the view in which that
        is nearest to the first. Two that are among the nearest of one another are two pairs: a step differs between
        the directions.
    """
    most = min(NEAREST, len(others) - 1)
    patterns = torch.cat([pattern(images[places]) for places in others.split(BLOCK)])  # (O, D)
    pairs = [torch.empty(0, 2, dtype=torch.long)]
    views = [torch.empty(0, dtype=torch.long)]
    for places in some.split(max(1, TILE // len(others))):
        shown = images[places]
        moved = torch.stack(
            [pattern(moved_by(shown, way.expand(len(shown), 2, 3))) for way in VIEWS]
        )
        closest = torch.full((len(places), len(others)), -torch.inf)
        for turned in moved:  # (B, D)
            torch.maximum(closest, turned @ patterns.T, out=closest)
        closest[torch.arange(len(places)), torch.searchsorted(others, places)] = -torch.inf
        cosine, nearest = closest.topk(most)  # (B, K)
        view = torch.einsum("vbd,bkd->bkv", moved, patterns[nearest]).argmax(dim=2)  # (B, K)
        pair = torch.stack([others[nearest], places[:, None].expand_as(nearest)], dim=2)
        is_close = cosine >= 1 - FAR**2 / 2
        pairs.append(pair[is_close])
        views.append(view[is_close])
    return torch.cat(pairs), torch.cat(views)


def are_equal(images: Tensor, pairs: Tensor, way: Tensor) -> Tensor:
    """Return whether the second of each of pairs (P, 2) of images (N, 4, C, C), moved by affine maps (P, 2, 3), is the
    first."""
    images, others = images[pairs].unbind(1)
    others = moved_by(others, way)
    weight = window(COARSE) * known_of_both(images, others)
    light = images[:, :-1]
    other_light = others[:, :-1]
    shows = contrast(
        light - mean_light(light, weight), other_light - mean_light(other_light, weight), weight
    )
    return (energy(other_light - light, weight) / shows).sqrt() <= EQUAL


def after_registration(
    images: Tensor, fine: Tensor, pairs: Tensor, way: Tensor, most: Tensor
) -> tuple[Tensor, Tensor]:
    """Return whether pairs (P, 2) are nearly alike, and whether they look alike, (P,) each.

    Args:
        images, fine: as in ``compared``; way: affine maps (P, 2, 3) of the second ones to start with; most: (P,), the
            difference of coarse thumbnails beyond which two do not look alike.
    """
    left = torch.empty(len(pairs))
    way = way.clone()
    is_near = torch.ones(len(pairs), dtype=torch.bool)
    for steps, largest in STAGES:
        left[is_near], way[is_near] = registered(images, pairs[is_near], way[is_near], steps)
        is_near = left <= largest
    is_alike = left <= most
    shown, place = pairs[is_alike].unique(return_inverse=True)
    known = F.interpolate(images[shown, 3:], fine.shape[2:])
    soft = softened(fine[shown].float(), known)
    left_fine, _ = registered(soft, place, way[is_alike], FURTHER)
    is_alike[is_alike.clone()] = left_fine <= ALIKE
    return is_near, is_alike


def registered(images: Tensor, pairs: Tensor, way: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Move and light the second of each of pairs (P, 2) of images (N, L + 1, C, C) so that it is like the first.

    Args:
        way: affine maps (P, 2, 3) of the second ones to start with; steps: of registration.

    Returns:
        The remaining difference (P,) as a share of their contrast (``explained``), and the maps (P, 2, 3).
    """
    shares = []
    ways = []
    for pair, moving in zip(pairs.split(PAIRS), way.split(PAIRS)):
        own, other = images[pair].unbind(1)
        changes = directions(own[:, :-1])  # (P, 6 + L, D)
        for _ in range(steps):
            motion, share = explained(own, moved_by(other, moving), changes)
            moving = one_after_the_other(as_affine(motion, images.shape[-1]), moving)
        shares.append(share)
        ways.append(moving)
    return torch.cat(shares), torch.cat(ways)


def known_of_both(images: Tensor, others: Tensor) -> Tensor:
    """Return the pixels that are known of images and of others, (P, L + 1, C, C) each, as (P, 1, C, C)."""
    return images[:, -1:] * (others[:, -1:] > 0.99).float()  # moved pixels are mixed ones


def contrast(detail: Tensor, other_detail: Tensor, weight: Tensor) -> Tensor:
    """Return the energy (P,) of what both show beside their mean light, (P, L, C, C); weights: (P, 1, C, C)."""
    least = energy(detail, weight).minimum(energy(other_detail, weight))
    return least + FAINT**2 * detail.shape[1:].numel()


def explained(images: Tensor, others: Tensor, changes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the motion (P, 4) of others (P, L + 1, C, C) that makes them most like images (P, L + 1, C, C)
    (``as_affine``), and the share (P,) of their common contrast that remains after it and a change of
    light. The share is infinite where the light differs by more than ``LIGHT`` or less than ``LEAST`` is
    known of both.

    Args:
        changes: (P, 6 + L, D), the images' ``directions``.
    """
    light = images[:, :-1]
    other_light = others[:, :-1]
    shape = window(images.shape[-1])
    weight = shape * known_of_both(images, others)  # (P, 1, C, C)
    mean = mean_light(light, weight)
    other_mean = mean_light(other_light, weight)
    shows = contrast(light - mean, other_light - other_mean, weight)
    rest = ((other_light - light) * weight).flatten(1)  # (P, D)
    weighted = changes * weight.expand_as(light).flatten(1)[:, None]  # (P, 6 + L, D)
    metric = weighted @ weighted.transpose(1, 2)  # (P, 6 + L, 6 + L)
    size = metric.diagonal(dim1=1, dim2=2)
    metric = metric + torch.diag_embed(1e-3 * size + 1)  # of a picture without edges, too
    along = torch.linalg.solve(metric, weighted @ rest[..., None])  # (P, 6 + L, 1)
    left = (rest - (along.transpose(1, 2) @ weighted)[:, 0]).square().sum(dim=1)
    is_other = (mean - other_mean).abs().amax((1, 2, 3)) > LIGHT
    is_other |= weight.square().sum((1, 2, 3)) < LEAST * shape.square().sum()
    return -along[:, :4, 0], (left / shows).sqrt().masked_fill(is_other, torch.inf)


def energy(light: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted sum of squares (P,) of light (P, L, C, C); weights: (P, 1, C, C)."""
    return (light * weight).square().sum((1, 2, 3))


def directions(light: Tensor) -> Tensor:
    """Return the changes (P, 6 + L, D) of light (P, L, C, C), to first order, when it is shifted to the right and
    down, enlarged, turned, given more contrast, more colour, and more light in each channel."""
    number, channels, pixels, _ = light.shape
    down, right = torch.gradient(light, dim=(2, 3))
    place = torch.arange(pixels) - (pixels - 1) / 2
    x = place[None, :]
    y = place[:, None]
    changes = torch.zeros(number, 6 + channels, channels, pixels, pixels)
    changes[:, 0] = right
    changes[:, 1] = down
    changes[:, 2] = x * right + y * down
    changes[:, 3] = x * down - y * right
    changes[:, 4] = light - light.mean((2, 3), keepdim=True)
    changes[:, 5] = light - light.mean(dim=1, keepdim=True)
    for channel in range(channels):
        changes[:, 6 + channel, channel] = 1
    return changes.flatten(2)


def as_affine(motion: Tensor, pixels: int) -> Tensor:
    """Return the affine map (P, 2, 3) (``moved_by``) of a motion (P, 4) of pictures with that many pixels a side: to
    the right and down in pixels, the scale minus 1, the angle in radians."""
    right, down, scale, angle = motion.unbind(1)
    across = torch.stack([1 + scale, -angle, 2 * right / pixels], dim=1)
    along = torch.stack([angle, 1 + scale, 2 * down / pixels], dim=1)
    return torch.stack([across, along], dim=1)


def one_after_the_other(first: Tensor, second: Tensor) -> Tensor:
    """Return the affine map (P, 2, 3) that is a first one followed by a second one, (P, 2, 3) each
    (``moved_by``)."""
    turned = second[:, :, :2] @ first
    return torch.cat([turned[:, :, :2], turned[:, :, 2:] + second[:, :, 2:]], dim=2)


def moved_by(images: Tensor, affine: Tensor) -> Tensor:
    """Return images (N, 4, C, C) whose pixels are taken from the places that affine maps (N, 2, 3) give,
    with sides from −1 to 1. Pixels from outside are unknown."""
    if not len(images):  # of which torch makes no grid
        return images
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)

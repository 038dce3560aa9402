"""A map of the test images: images that a trained model finds alike lie together."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import NamedTuple

import numpy
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor

from results.runs import FinishedRun, RunSeries
from results.svg import INK
from trainers.common.errors import UserError
from trainers.data.transforms import least_side
from trainers.devices import AUTO
from trainers.engine.build import find_method
from trainers.engine.saved_run import load_run

from .figures import MARKERS, Figure, finish
from .models import background_of, features_of
from .pictures import Found, Paths

log = logging.getLogger(__name__)

FEWEST = 21  # images, below which a map shows nothing
MOST_ENCODED = 200  # that are encoded once more for it
NAMED_CLASSES = 12  # classes, above which a legend would cover the page
MAP_STEPS = 500  # of t-SNE: twice as many make its divergence smaller by less than 4 %, and the map no clearer
MAP_NEIGHBOURS = 10.0  # t-SNE's perplexity: about how many images are an image's neighbours
RING = 60  # of a wrong answer's circle, in points²


class Map(NamedTuple):
    """Places of test images beside one another.

    Attributes:
        places: (N, 2), of N images.
        classes: N names of their own classes.
        right: (N,), bool, whether they are answered rightly.
    """

    places: numpy.ndarray
    classes: list[str]
    right: numpy.ndarray


def map_of(run: FinishedRun, paths: Paths, device: str = AUTO) -> Map | None:
    """The map of a run's test images, at most ``MOST_ENCODED`` of them, as many of the first as of the last;
    None where fewer than ``FEWEST`` are at hand.

    Args:
        paths: images that it lacks are passed over.
        device: as in ``load_run``.

    Raises:
        UserError: the prompts, their CLIP or an image can't be loaded.
    """
    from sklearn.manifold import TSNE

    answers = run.known_answers
    known = [number for number, name in enumerate(answers["image"]) if name in paths]
    if len(known) < FEWEST:
        return None
    spread = numpy.linspace(0, len(known) - 1, min(MOST_ENCODED, len(known))).round().astype(int)
    chosen = numpy.array(known)[spread]
    found = [paths[answers["image"][number]] for number in chosen]
    features = known_features(run, found)  # (N, E)
    if features is None:
        saved = load_run(str(run.folder), device=device)
        how = background_of(saved), least_side(saved.cfg.INPUT)
        features = features_of(saved, (image.as_tested(*how) for image in found))
    perplexity = min(MAP_NEIGHBOURS, (len(chosen) - 1) / 3)
    flat = TSNE(
        perplexity=perplexity,
        metric="cosine",
        init="random",
        max_iter=MAP_STEPS,
        random_state=0,
        n_jobs=1,
    )
    classes = [run.class_name(label) for label in answers["label"][chosen].tolist()]
    return Map(flat.fit_transform(features.numpy()), classes, answers["right"][chosen])


def known_features(run: FinishedRun, found: Sequence[Found]) -> Tensor | None:
    """Features (N, E), of length one, of images under a run's prompts, where they are the CLIP's own and all
    known; else None."""
    record = run.record
    if find_method(record["trainer"]).learns_in_epochs:
        return None
    key = (record["backbone_hash"], record["precision"])
    known = [image.features(key) for image in found]
    features = [of_image for of_image in known if of_image is not None]
    if len(features) < len(known):
        return None
    return F.normalize(torch.stack(features), dim=-1)


def map_figures(
    series: list[RunSeries], images: dict[str, Paths], device: str = AUTO
) -> Iterator[Figure]:
    """A map for each task whose images are at hand, of the first seed of its first training.

    Args:
        series: those with answers; images: data set → its images' files.
        device: as in ``load_run``.
    """
    mapped = set()
    for entry in sorted(series, key=lambda entry: entry.is_zero_shot):
        run = entry.first
        if entry.task in mapped or not run.is_training:
            continue
        mapped.add(entry.task)
        try:
            made = map_of(run, images.get(run.record["dataset"], {}), device)
        except UserError as error:
            log.warning("the map of %s can't be drawn: %s", run.folder, error)
            continue
        if made is not None:
            where = f"{entry.where}, seed {run.seed}"
            wrong = int((~made.right).sum())
            yield Figure(
                f"map {entry.tested_on}",
                f"Which images are alike, {where}",
                "Images that lie together are alike under the learned prompts (t-SNE of their features); "
                "the colour is their own class, a circle marks a wrong answer. Distances between "
                "far groups and the axes mean nothing.",
                f"Map of {len(made.classes)} test images of {len({*made.classes})} classes by {where}; "
                f"{wrong} of them, circled, are answered wrongly.",
                partial(draw, made),
            )


def draw(made: Map, axes: Axes) -> None:
    """A mark for each image, of its own class's shape and colour."""
    names = sorted({*made.classes})
    classes = numpy.array(made.classes)
    for number, (name, marker) in enumerate(zip(names, cycle(MARKERS))):
        x, y = made.places[classes == name].T
        axes.scatter(x, y, s=18, marker=marker, color=f"C{number % 10}", label=name)
    x, y = made.places[~made.right].T
    axes.scatter(x, y, s=RING, facecolors="none", edgecolors=INK, linewidths=1)
    axes.set(xticks=[], yticks=[])
    if len(names) <= NAMED_CLASSES:
        finish(axes)

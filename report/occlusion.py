"""The places that each template looks at: its probability of an image's class falls when they
are covered."""

import logging
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy
from matplotlib.axes import Axes
from PIL import Image, ImageOps

from results.answers import UNCERTAINTY
from results.runs import FinishedRun, RunSeries
from trainers.common.errors import UserError
from trainers.data.transforms import least_side
from trainers.devices import AUTO
from trainers.engine.saved_run import load_run

from .figures import Figure
from .models import background_of, prediction_of
from .pictures import Found, Paths

log = logging.getLogger(__name__)

SIDE = 224  # pixels of the picture
PATCH = 56  # of the patch
STRIDE = 28  # between the patch's places
PATCH_PLACES = 1 + (SIDE - PATCH) // STRIDE  # of the patch, in each direction
COVER = (128, 128, 128)
MOST_SHOWN = 4  # images
PICTURE_SIDE = 96  # pixels of a picture's side in the figure
GAP = 0.06  # between two pictures there, as a share of a side


class Occlusion(NamedTuple):
    """Answers of templates to a picture whose places are covered one after another.

    Attributes:
        name: of the picture's class.
        picture: RGB, ``SIDE`` pixels a side.
        drops: (M, PLACES, PLACES); at [m, r, c] template m's probability of the class for the whole
            picture minus that for the picture covered from pixel (r · STEP, c · STEP) on.
    """

    name: str
    picture: Image.Image
    drops: numpy.ndarray


def occlusions(run: FinishedRun, paths: Paths, device: str = AUTO) -> list[Occlusion]:
    """An ``Occlusion`` for the least uncertain right answers, one per class: how far each
    template's probability of the class falls when a grey patch covers a place of the image (Zeiler,
    Fergus, 2014, "Visualizing and Understanding Convolutional Networks", §4.2).

    Args:
        run: a training whose templates vote.
        paths: images that it lacks are passed over.
        device: as in ``load_run``.

    Raises:
        UserError: the prompts, their CLIP or an image can't be loaded.
    """
    answers = run.known_answers
    chosen: dict[int, Found] = {}
    for index in numpy.argsort(answers[UNCERTAINTY], kind="stable"):
        found = paths.get(answers["image"][index])
        if found and answers["right"][index] and len(chosen) < MOST_SHOWN:
            chosen.setdefault(answers["label"][index], found)
    if not chosen:
        return []
    saved = load_run(str(run.folder), device=device)
    made = []
    for label, found in chosen.items():
        whole = found.as_tested(background_of(saved), least_side(saved.cfg.INPUT))
        picture = ImageOps.fit(whole, (SIDE, SIDE))
        covered = [picture]  # the first one stays whole
        for row, column in numpy.ndindex(PATCH_PLACES, PATCH_PLACES):
            covered.append(picture.copy())
            left = column * STRIDE
            top = row * STRIDE
            covered[-1].paste(COVER, (left, top, left + PATCH, top + PATCH))
        votes = prediction_of(saved, covered).votes  # (M, 1 + PLACES², K)
        assert votes is not None
        of_class = votes[:, :, label].numpy()
        drops = (of_class[:, :1] - of_class[:, 1:]).reshape(-1, PATCH_PLACES, PATCH_PLACES)
        made.append(Occlusion(saved.method.classnames[label], picture, drops))
    return made


def occlusion_figures(
    series: list[RunSeries], images: dict[str, Paths], device: str = AUTO
) -> Iterator[Figure]:
    """A figure for the first seed of each series of trainings whose templates vote and whose images
    are at hand.

    Args:
        series: those with answers; images: data set → its images' files.
        device: as in ``load_run``.

    Raises:
        UserError: the seeds of a series have different numbers of templates.
    """
    for entry in series:
        run = entry.first
        if not entry.has("vote") or len(entry.pool("vote")) < 2 or not run.is_training:
            continue
        try:
            shown = occlusions(run, images.get(run.record["dataset"], {}), device)
        except UserError as error:
            log.warning("where the templates of %s look can't be drawn: %s", run.folder, error)
            continue
        if shown:
            where = f"{entry.where}, seed {run.seed}"
            largest = []
            for one in shown:
                falls = [f"{100 * fall:.0f}" for fall in one.drops.max(axis=(1, 2))]
                largest.append(f"{one.name} {', '.join(falls)}")
            yield Figure(
                f"occlusion {entry.tested_on} {entry.name}",
                f"Where each template looks, {where}",
                "Red where a template's probability of the image's class falls when a grey patch "
                "covers the place, blue where it rises. The least uncertain right answers, one "
                "per class.",
                f"Occlusion maps of {where}. Largest fall of the class's probability in points: "
                f"{'; '.join(largest)}.",
                partial(draw, shown),
            )


def draw(shown: list[Occlusion], axes: Axes) -> None:
    """A row for each image: the picture, and the drops of each template over a grey copy of it; all
    on one scale.
    """
    step = 1 + GAP
    templates = len(shown[0].drops)
    limit = 100 * max(numpy.abs(one.drops).max() for one in shown)
    # a patch's drop is shown in its middle
    near = (PATCH - STRIDE) / 2 / SIDE
    far = near + PATCH_PLACES * STRIDE / SIDE
    for row, one in enumerate(shown):
        small = one.picture.resize((PICTURE_SIDE, PICTURE_SIDE))
        top = row * step
        axes.imshow(small, extent=(0, 1, top + 1, top))
        for column, drop in enumerate(one.drops, 1):
            left = column * step
            grey = small.convert("L").convert("RGB")
            axes.imshow(grey, extent=(left, left + 1, top + 1, top))
            colours = axes.imshow(
                100 * drop,
                extent=(left + near, left + far, top + far, top + near),
                cmap="RdBu_r",
                vmin=-limit,
                vmax=limit,
                alpha=0.6,
                interpolation="bilinear",
            )
    axes.set(xlim=(0, (1 + templates) * step - GAP), ylim=(len(shown) * step - GAP, 0))
    heads = ["image", *(str(number) for number in range(1, 1 + templates))]
    axes.set_xticks([column * step + 0.5 for column in range(1 + templates)], heads)
    names = [one.name.replace(" ", "\n") for one in shown]
    axes.set_yticks([row * step + 0.5 for row in range(len(shown))], names, fontsize="small")
    axes.set_xlabel("template")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    label = "fall of the class's probability in points"
    axes.figure.colorbar(colours, ax=axes, label=label, shrink=0.6)

"""What was seen inside the models whose templates vote (``analysis/inspection.py``), and the matrices between templates that follow."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy

from ..answers import agreement, kappa
from ..runs import Series

AGREEMENT, KAPPA = "Agreement of the votes in %", "Cohen's kappa of the votes"
TEXT, IMAGE = "Text features, 100 × cosine", "Image features, 100 × cosine"
Near = tuple[str, float]  # a word and its distance


@dataclass
class Occlusion:
    """An image and how its own class fares when places of it are covered.

    Attributes:
        name: of the class.
        picture: (H, W, 3) in [0, 1], what the model is shown.
        drops: (M, R, C), see ``analysis.occlusion.occlusion_map``.
        size, stride: of the patch and between its places, in pixels.
    """

    name: str
    picture: numpy.ndarray
    drops: numpy.ndarray
    size: int
    stride: int


@dataclass
class Inspection:
    """What is seen inside the model of a run with M templates of n context tokens.

    Attributes:
        text: (M + 1, M + 1), cosines of the tested classes' text features, mean over classes; the last is the hand-crafted prompt.
        image: likewise of the test images' features; the last is the image encoder without prompts. None where it has none, or the images
            are not at hand.
        words: M lists of n lists of (word, distance), nearest first.
        between_words: distance of a word to the nearest other one, median over words.
        occlusions: an ``Occlusion`` of some of the images at hand.
    """

    text: numpy.ndarray
    image: numpy.ndarray | None
    words: list[list[list[Near]]]
    between_words: float
    occlusions: list[Occlusion] = field(default_factory=list)


Inspections = dict[Path, Inspection]  # by the run's folder


def with_templates(series: list[Series]) -> list[Series]:
    """Those of the series with answers whose runs have at least two templates.

    Raises:
        UserError: the runs of one don't fit together.
    """
    return [one for one in series if one.has("vote") and len(one.pooled("vote")) > 1]


def matrices(one: Series, inspections: Inspections) -> dict[str, dict[int, numpy.ndarray]]:
    """title → seed → square matrix between the templates of a series, and what else ``names`` says."""
    found: dict[str, dict[int, numpy.ndarray]] = {}
    for run in one.runs:
        answers, inspection = run.known_answers, inspections.get(run.folder)
        here = {
            AGREEMENT: agreement(answers["vote"], answers["top"][:, 0], answers["label"]),
            KAPPA: kappa(answers["vote"]),
        }
        if inspection is not None:
            here[TEXT] = 100 * inspection.text
            if inspection.image is not None:
                here[IMAGE] = 100 * inspection.image
        for title, matrix in here.items():
            found.setdefault(title, {})[run.record["seed"]] = matrix
    return found


def names(title: str, size: int) -> list[str]:
    """What the rows and columns of a matrix are called: templates from 1 on, and what is compared with them."""
    further = {AGREEMENT: ["answer", "truth"], KAPPA: []}.get(
        title, ["t⁰"]
    )  # the hand-crafted prompt, and images without prompts
    return [*map(str, range(1, size + 1 - len(further))), *further]

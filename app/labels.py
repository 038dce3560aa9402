"""Finds the images for ``predict.py``, and formats its results as a table, JSON or text."""

import csv
import glob
import io
import json
import logging
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from trainers.common.console import printable, table_cell
from trainers.common.errors import UserError
from trainers.common.image_files import ENDINGS, files_below, is_image, left_out
from trainers.evaluation.doubts import decimal

if TYPE_CHECKING:
    from trainers.classifier.prompted import Answers

log = logging.getLogger("predict")
COLUMNS = ("image", "label", "doubtful", "uncertainty")  # of every table


def find_images(given: Sequence[str], stdin: Iterable[str]) -> list[str]:
    """Paths of all images that are meant, in the order given, those of a folder sorted.

    Raises:
        UserError: something is no file, no folder and no pattern that anything fits, a folder has no images, or a name is not UTF-8.
    """
    places = [
        place
        for word in given
        for place in (
            [line.strip("\r\n") for line in stdin if line.strip()] if word == "-" else [word]
        )
    ]
    found = []
    for place in places:
        if os.path.exists(place):
            matches = [place]
        else:
            matches = sorted(glob.glob(place, recursive=True))
        if not matches:
            raise UserError(f"{place!a} is not a file, a folder or a pattern that matches any")
        for match in matches:
            if not os.path.isdir(match):
                found.append(match)
                continue
            below = list(files_below(match))
            if not any(map(is_image, below)):
                raise UserError(f"{match} holds no images (they end in {', '.join(ENDINGS)})")
            found += filter(is_image, below)
            if line := left_out(below):
                log.info(line)
    for path in found:
        try:
            path.encode()
        except UnicodeEncodeError:  # Python's stand-ins for bytes that are no UTF-8
            raise UserError(f"the name {path!a} is not UTF-8: rename it") from None
    if not found:
        raise UserError("there is no image to label: the list on standard input is empty")
    return found


def rows(answers: "Answers", doubtful: Sequence[bool | None], topk: int) -> list[dict[str, Any]]:
    """One dict an image: image, label (None for a doubtful one), doubtful (see ``doubts``), uncertainty, vacuity and conflict where there are
    any, and ``top``, the most probable classes as pairs of name and probability."""
    found = []
    for number, image in enumerate(answers.images):
        order = numpy.argsort(-answers.probabilities[number], kind="stable")[:topk]
        row = {
            "image": image,
            "label": None if doubtful[number] else answers.labels[number],
            "doubtful": doubtful[number],
            "uncertainty": float(answers.uncertainty[number]),
        }
        if answers.vacuity is not None and answers.conflict is not None:
            row.update(
                vacuity=float(answers.vacuity[number]), conflict=float(answers.conflict[number])
            )
        found.append(
            {
                **row,
                "top": [
                    (answers.classnames[label], float(answers.probabilities[number, label]))
                    for label in order
                ],
            }
        )
    return found


def as_csv(found: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    plain = [key for key in found[0] if key != "top"]
    places = range(1, len(found[0]["top"]) + 1)
    writer.writerow(
        [
            *plain,
            *(column for place in places for column in (f"class_{place}", f"probability_{place}")),
        ]
    )
    for row in found:
        writer.writerow(
            [
                *("" if row[key] is None else table_cell(row[key]) for key in plain),
                *(table_cell(value) for pair in row["top"] for value in pair),
            ]
        )
    return text.getvalue()


def as_json(found: Sequence[dict[str, Any]], is_ascii: bool = False) -> str:
    named = [
        {**row, "top": [{"class": name, "probability": value} for name, value in row["top"]]}
        for row in found
    ]
    return json.dumps(named, indent=2, ensure_ascii=is_ascii, allow_nan=False) + "\n"


def as_text(found: Sequence[dict[str, Any]]) -> str:
    """A line an image, tabs in between: image, label or ``?``, the top classes, the uncertainty."""
    lines = []
    for row in found:
        top = ", ".join(f"{name} {100 * value:.1f} %" for name, value in row["top"])
        uncertainty = (
            f"uncertainty {decimal(row['uncertainty'])}"
            + {True: ", not sure", False: ", within the limit", None: ""}[row["doubtful"]]
        )
        cells = [row["image"], "?" if row["doubtful"] else row["label"], top, uncertainty]
        lines.append("\t".join(map(printable, cells)))
    return "\n".join(lines) + "\n"

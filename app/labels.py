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
Row = dict[str, Any]  # see ``rows``


def find_images(given: Sequence[str], stdin: Iterable[str]) -> list[str]:
    """Paths of all images that are meant, in the order given, those of a folder sorted.

    Raises:
        UserError: something is no file, no folder and no pattern that anything fits, a folder has no images, or a name is not UTF-8.
    """
    places: list[str] = []
    for word in given:
        listed = word == "-"
        places += [line.strip("\r\n") for line in stdin if line.strip()] if listed else [word]
    paths: list[str] = []
    for place in places:
        matches = [place] if os.path.exists(place) else sorted(glob.glob(place, recursive=True))
        if not matches:
            raise UserError(f"{place!a} is not a file, a folder or a pattern that matches any")
        for match in matches:
            if not os.path.isdir(match):
                paths.append(match)
                continue
            below = list(files_below(match))
            if not any(map(is_image, below)):
                raise UserError(f"{match} holds no images (they end in {', '.join(ENDINGS)})")
            paths += filter(is_image, below)
            if line := left_out(below):
                log.info(line)
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:  # Python's stand-ins for bytes that are no UTF-8
            raise UserError(f"the name {path!a} is not UTF-8: rename it") from None
    if not paths:
        raise UserError("there is no image to label: the list on standard input is empty")
    return paths


def rows(answers: "Answers", doubtful: Sequence[bool | None], topk: int) -> list[Row]:
    """One dict an image.

    It has image, label (None for a doubtful one), doubtful (None where nothing says what that would
    be), uncertainty, vacuity and conflict where there are any, and ``top``, the most probable
    classes as pairs of name and probability.
    """
    labelled: list[Row] = []
    for number, image in enumerate(answers.images):
        row: Row = {
            "image": image,
            "label": None if doubtful[number] else answers.labels[number],
            "doubtful": doubtful[number],
            "uncertainty": float(answers.uncertainty[number]),
        }
        if answers.vacuity is not None and answers.conflict is not None:
            row["vacuity"] = float(answers.vacuity[number])
            row["conflict"] = float(answers.conflict[number])
        probability = answers.probabilities[number]  # (K,)
        order = numpy.argsort(-probability, kind="stable")[:topk]
        row["top"] = [(answers.classnames[label], float(probability[label])) for label in order]
        labelled.append(row)
    return labelled


def as_csv(rows: Sequence[Row]) -> str:
    """A column for each field, and two for each place among the top classes."""
    text = io.StringIO()
    table = [
        {key: "" if row[key] is None else row[key] for key in row if key != "top"}
        | {
            f"{column}_{place}": cell
            for place, pair in enumerate(row["top"], 1)
            for column, cell in zip(("class", "probability"), pair)
        }
        for row in rows
    ]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([table[0], *(map(table_cell, line.values()) for line in table)])
    return text.getvalue()


def as_json(rows: Sequence[Row]) -> str:
    """In ASCII, which every output takes."""
    named = [
        {**row, "top": [{"class": name, "probability": value} for name, value in row["top"]]}
        for row in rows
    ]
    return json.dumps(named, indent=2, allow_nan=False) + "\n"


def as_text(rows: Sequence[Row]) -> str:
    """A line an image, tabs in between: image, label or ``?``, the top classes, the uncertainty."""
    verdicts = {True: ", not sure", False: ", within the limit", None: ""}
    text = ""
    for row in rows:
        top = ", ".join(f"{name} {100 * value:.1f} %" for name, value in row["top"])
        uncertainty = f"uncertainty {decimal(row['uncertainty'])}{verdicts[row['doubtful']]}"
        cells = row["image"], "?" if row["doubtful"] else row["label"], top, uncertainty
        text += "\t".join(map(printable, cells)) + "\n"
    return text

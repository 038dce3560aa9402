"""Answers of several labels as rows, one per image, and what differs from one label in writing them."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from trainers.common.console import printable
from trainers.common.files import write_lines
from trainers.evaluation.figures import decimal

from ..folders.label_sets import BETWEEN
from ..several.classifier import SetAnswers
from .label_studio import LabelStudioWriter, task_of
from .rows import most_probable
from .writers import Writer, json_list

NONE = "none of them"  # in a line of text


def rows_of(answers: SetAnswers, topk: int) -> list[dict[str, Any]]:
    """The answers to N images: ``image``, ``label`` (``dog;ball``), ``doubtful`` (None), ``uncertainty``,
    ``labels`` (a list) and ``top``, the most probable labels with their thresholds."""
    thresholds = (
        {} if answers.thresholds is None else dict(zip(answers.classnames, answers.thresholds))
    )
    table = []
    for number, image in enumerate(answers.images):
        top = most_probable(answers.probabilities[number], answers.classnames, topk)
        table.append(
            {
                "image": image,
                "label": BETWEEN.join(answers.labels[number]),
                "doubtful": None,
                "uncertainty": float(answers.uncertainty[number]),
                "labels": answers.labels[number],
                "top": [
                    {**entry, "threshold": float(min(thresholds[entry["class"]], 1.0))}
                    for entry in top
                ]
                if thresholds
                else top,
            }
        )
    return table


def columns_of(answers: SetAnswers, topk: int, probabilities: bool) -> list[dict[str, Any]]:
    """See ``rows_of``; each row in columns: two for each place among the most probable labels or, with
    ``probabilities``, ``probability_<label>`` for each label."""
    table = []
    for number, row in enumerate(rows_of(answers, topk)):
        columns = {name: row[name] for name in ("image", "label", "doubtful", "uncertainty")}
        if probabilities:
            own = zip(answers.classnames, answers.probabilities[number].tolist())
            columns |= {f"probability_{name}": value for name, value in own}
        else:
            for place, entry in enumerate(row["top"], 1):
                columns[f"class_{place}"] = entry["class"]
                columns[f"probability_{place}"] = entry["probability"]
        table.append(columns)
    return table


class SetTextWriter(Writer):
    """Prints a line per image."""

    def write(self, rows: Iterator[dict[str, Any]], model: str) -> None:
        sys.stdout.writelines(map(text_line, rows))


def text_line(row: Mapping[str, Any]) -> str:
    """A line for an image, with tabs in between: image, labels, the most probable ones, the uncertainty."""
    top = ", ".join(f"{of['class']} {100 * of['probability']:.1f} %" for of in row["top"])
    uncertainty = f"uncertainty {decimal(row['uncertainty'])}"
    cells = row["image"] or "", row["label"] or NONE, top, uncertainty
    return "\t".join(map(printable, cells)) + "\n"


class SetLabelStudioWriter(LabelStudioWriter):
    """Writes a JSON list of tasks: an image and all its labels, as choices of which several may be taken;
    the score is one minus the uncertainty."""

    def write(self, rows: Iterator[Any], model: str) -> None:
        tasks = (
            json.dumps(
                task_of(
                    row["image"] or "", row["labels"], 1 - row["uncertainty"], model, self.folder
                )
            )
            for row in rows
        )
        write_lines(os.path.abspath(self.path), json_list(tasks))

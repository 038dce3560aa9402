"""The tables of a report: accuracies by protocol, calibration, and measures of uncertainty."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results.kept import CALIBRATION
from results.rows import SERIES_HEADS, Line, Table
from results.runs import RunSeries, collect
from results.table import NoTable, tables
from trainers.common.errors import UserError

log = logging.getLogger(__name__)

CALIBRATION_COLUMNS = {"accuracy": "accuracy"} | CALIBRATION
MULTI_LABEL_MEASURES = {"map": "mAP", "micro_f1": "micro F1", "macro_f1": "macro F1", "ece": "ECE"}
MEASURED_BY = {"aurc": "AURC", "error_auroc": "error AUROC"}


@dataclass(frozen=True)
class Tables:
    """The tables of the page; accuracies, calibration errors and areas are in percent.

    Attributes:
        accuracies: of ``protocol_tables``.
        measured: of ``measured_tables``.
    """

    accuracies: list[Table]
    measured: list[Table]


def protocol_tables(folders: Sequence[str | Path]) -> list[Table]:
    """The tables of the protocols whose runs lie in or below each folder; with the folder in the
    title where there are several.
    """
    made = []
    for folder in folders:
        try:
            found = tables([run for run in collect(folder) if not run.is_multi_label])
        except NoTable:  # its runs belong to no protocol, or have no accuracy
            continue
        except UserError as error:
            log.warning("no accuracies by protocol: %s", error)
            continue
        for table in found:
            if len(folders) > 1:
                table.title += f" ({Path(folder).name})"
            made.append(table)
    return [table for table in made if len(table.frame)]


def measured_tables(series: list[RunSeries]) -> list[Table]:
    """Calibration, a row for each series, and how well each measure of uncertainty finds wrong
    answers, a row for each series and measure; for multi-label runs that give labels their measures. A
    table without rows is left out.
    """
    calibration: list[Line] = []
    labels: list[Line] = []
    uncertainty: list[Line] = []
    for entry in series:
        key = entry.tested_on, entry.name
        for run in entry.runs:
            values = {title: run.metrics.get(name) for name, title in CALIBRATION_COLUMNS.items()}
            calibration.append((key, run.seed, values))
            values = {title: run.metrics.get(name) for name, title in MULTI_LABEL_MEASURES.items()}
            labels.append((key, run.seed, values))
            for measure, worth in run.metrics.get("uncertainty", {}).items():
                values = {title: worth[name] for name, title in MEASURED_BY.items()}
                uncertainty.append(((*key, measure.replace("_", " ")), run.seed, values))
    made = [
        Table.of("Calibration", SERIES_HEADS, calibration),
        Table.of("Labels", SERIES_HEADS, labels),
        Table.of("Uncertainty", (*SERIES_HEADS, "by"), uncertainty),
    ]
    return [table for table in made if len(table.by_seed)]

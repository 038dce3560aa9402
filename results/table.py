"""Table of base-to-new results out of run records: accuracy on base and new classes and their harmonic mean H.

    python -m results.table output/base2new [--format text|markdown|csv|latex] [--output FILE]

Reads every ``results.json`` below ``train_base/`` and ``test_new/`` (CoOp's folder layout) and nothing else: a run without
one is not done and not counted. H is computed seed by seed; ± is the sample standard deviation over seeds.
"""
import argparse
import csv
import io
import json
import logging
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from trainers.checkpoint import write_text
from trainers.errors import UserError
from trainers.run_record import FILE_NAME, FORMAT

log = logging.getLogger(__name__)

FORMATS = ("text", "markdown", "csv", "latex")
PARTS = {"base": "train_base", "new": "test_new"}
COLUMNS = ("data set", "shots", "trainer", "config", "seeds", "base", "new", "H")


@dataclass
class Row:
    """One trainer with one config on one data set.

    Attributes:
        base, new: seed → accuracy in percent.
        prompts: seed → hashes of the prompts and backbones that were tested; one where all is well.
    """
    key: tuple
    base: dict = field(default_factory=dict)
    new: dict = field(default_factory=dict)
    prompts: dict = field(default_factory=dict)

    @property
    def seeds(self):
        """Seeds for which both halves are done."""
        return sorted(self.base.keys() & self.new.keys())

    def figures(self, name):
        """Accuracies (or H) of the complete seeds, in percent."""
        if name == "H":
            return [harmonic_mean(self.base[seed], self.new[seed]) for seed in self.seeds]
        return [getattr(self, name)[seed] for seed in self.seeds]


def harmonic_mean(base, new):
    """2ab / (a + b), 0 where both are 0 (Xian et al., 2017, "Zero-Shot Learning — the Good, the Bad and the Ugly")."""
    return 2 * base * new / (base + new) if base + new else 0.0


def read_records(folder):
    """Run records below a folder, with their paths relative to it.

    Raises:
        UserError: a record can't be read or has another format.
    """
    for path in sorted(Path(folder).rglob(FILE_NAME)):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is no run record ({error}): run it again") from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise UserError(f"{path} has the format {record.get('format') if isinstance(record, dict) else None}, this version "
                            f"reads {FORMAT}: run it again")
        yield path.relative_to(folder), record


def collect(folder):
    """Rows of a base-to-new output folder, in the order of data set, shots and base accuracy.

    Raises:
        UserError: no record there.
    """
    rows, splits = {}, {}
    for half, part in PARTS.items():
        for path, record in read_records(Path(folder) / part):
            if record["classes"] != half or "test" not in record["metrics"]:
                log.warning("left out: %s/%s tests the %s classes' %s", part, path, record["classes"], ", ".join(record["metrics"]) or "nothing")
                continue
            key = (record["dataset"], record["shots"], record["trainer"], path.parent.parent.name)
            row = rows.setdefault(key, Row(key))
            getattr(row, half)[record["seed"]] = record["metrics"]["test"]["accuracy"]
            row.prompts.setdefault(record["seed"], set()).add((record["prompts_hash"], record["backbone_hash"]))
            splits.setdefault((record["dataset"], record["shots"], half, record["seed"]), set()).add(record["split_hash"])
    if not rows:
        raise UserError(f"no run record below {folder}/{{{','.join(PARTS.values())}}}: run scripts/cdc/demo.sh or base2new_train.sh and base2new_test.sh first")
    for (dataset, shots, half, seed), hashes in splits.items():
        if len(hashes) > 1:
            log.warning("not comparable: %s, %d shots, seed %d: the runs used %d different samples of the %s classes",
                        dataset, shots, seed, len(hashes), half)
    for row in rows.values():
        for seed, hashes in row.prompts.items():
            if len(hashes) > 1:
                log.warning("not one run: %s, seed %s: base and new classes were tested with different prompts", " ".join(map(str, row.key)), seed)
        half_done = sorted(row.base.keys() ^ row.new.keys())
        if half_done:
            log.warning("left out: %s seed(s) %s, of which only one half is done", " ".join(map(str, row.key)), ", ".join(map(str, half_done)))
    complete = [row for row in rows.values() if row.seeds]
    return sorted(complete, key=lambda row: (row.key[:2], statistics.mean(row.figures("base"))))


def summary(values):
    """``mean ± sample standard deviation`` in percent with two decimals; one value stands alone."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def render(rows, style="text"):
    """The table as text, Markdown, CSV (means and deviations in columns of their own) or LaTeX."""
    if style == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([*COLUMNS[:5], *(f"{name}_{figure}" for name in COLUMNS[5:] for figure in ("mean", "std"))])
        for row in rows:
            writer.writerow([*row.key, len(row.seeds), *(
                figure for name in COLUMNS[5:] for figure in (
                    f"{statistics.mean(row.figures(name)):.4f}",
                    f"{statistics.stdev(row.figures(name)):.4f}" if len(row.seeds) > 1 else ""))])
        return buffer.getvalue()
    cells = [[*row.key, len(row.seeds), *(summary(row.figures(name)) for name in COLUMNS[5:])] for row in rows]
    layout = {"text": "simple", "markdown": "github", "latex": "latex_booktabs"}[style]
    return tabulate(cells, headers=COLUMNS, tablefmt=layout, disable_numparse=True, colalign=("left",) * 4 + ("right",) * 4) + "\n"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="output/base2new, or wherever train_base/ and test_new/ lie")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", help="write to this file instead of standard output")
    args = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        table = render(collect(args.folder), args.format)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if args.output:
        write_text(str(Path(args.output).absolute()), table)
    else:
        sys.stdout.write(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

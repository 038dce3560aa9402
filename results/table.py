"""Tables out of run records, one for each protocol whose runs lie below a folder.

    python -m results.table output/base2new [--metric accuracy] [--published] [--seed-h] [--format text|markdown|csv|latex|html] [--output FILE]

A metric is a key of the records' metrics: accuracy, macro_f1, ece, nll, brier, uncertainty.max_probability.aurc … Reads every
``results.json`` and nothing else: a run without one is not done and not counted. H is that of the mean base and the mean new accuracy, as papers
print it; with ``--seed-h`` the mean of the seeds' own H. ± is the sample standard deviation over seeds.
"""

import argparse
import logging
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainers.common.errors import UserError
from trainers.common.record_file import FILE_NAME, Record, finite, nested, read_record

from .published import comparisons
from .render import render_all, run_table_command, table_arguments, write_out
from .rows import HEADS, Column, Key, Row, Table

log = logging.getLogger(__name__)

SHARES = (
    "accuracy",
    "macro_f1",
)  # the metrics of which papers print a harmonic mean of base and new
OPEN = {
    "base": "open.base_accuracy",
    "new": "open.new_accuracy",  # column → metric, of runs of ``test_open``
    "AUROC": "open.auroc.new_probability",
    "OpenworldAUC": "open.openworld_auc.new_probability",
}
APART = {"AUROC": "auroc", "OpenworldAUC": "openworld_auc"}
FACTOR_PARTS = {
    "train_biased": "aligned",
    "test_independent": "independent",
    "test_reversed": "reversed",
}  # folder → column


def harmonic_mean(pair: Sequence[float]) -> float:
    """2ab / (a + b), 0 where both are 0 (Xian et al., 2017, "Zero-Shot Learning — the Good, the Bad and the Ugly")."""
    base, new = pair
    return 2 * base * new / (base + new) if base + new else 0.0


def read_records(folder: str | Path) -> Iterator[tuple[Path, Record]]:
    """Run records below a folder, with their paths relative to it.

    Raises:
        UserError: a record can't be read or has another format.
    """
    for path in sorted(Path(folder).rglob(FILE_NAME)):
        yield path.relative_to(folder), read_record(path)


def place(part: str, path: Path, record: Record) -> tuple[str, Key, Column] | None:
    """Which table, row and column a record belongs to, or None: ``protocols/plan.py`` says how the folders are called.

    Args:
        part: folder below the protocol's own; path: data set/shots_N/trainer/config/seedN/results.json.
    """
    trained = (
        "all"
        if part.startswith(("train_source", "xd_from_", "dg_from_"))
        else {
            "train_base": "base",
            "test_new": "new",
            "train_all": "all",
            "test_all": "all",
            "test_open": "all",
            **dict.fromkeys(FACTOR_PARTS, "base"),
        }.get(part)
    )
    if trained is None or len(path.parts) != 6 or not re.fullmatch(r"shots_-?\d+", path.parts[1]):
        return None
    if record["classes"] != trained or "test" not in record["metrics"]:
        log.warning(
            "left out: %s/%s tests the %s classes' %s",
            part,
            path,
            record["classes"],
            ", ".join(record["metrics"]) or "nothing",
        )
        return None
    data, shots, trainer, config = (
        path.parts[0],
        int(path.parts[1].removeprefix("shots_")),
        *path.parts[2:4],
    )
    if part in ("train_base", "test_new"):
        return "base2new", (data, shots, trainer, config), trained
    if part in FACTOR_PARTS:
        return "factors", (data, shots, trainer, config), FACTOR_PARTS[part]
    if part == "train_all":
        return "fewshot", (data, None, trainer, config), shots
    if part == "test_open":
        return "open", (data, shots, trainer, config), "all classes"
    if part == "test_all":
        return "zeroshot", (data, None, trainer, config), "all classes"
    if part == "train_source":
        return "source", (data, shots, trainer, config), "source"
    protocol, source = part.split("_from_", 1)
    return f"{protocol} {source}", (source, shots, trainer, config), data


def metric_of(record: Record, metric: str) -> float | None:
    """A metric of the test images, a number, by its dotted name; None where the run has none of that name."""
    return finite(nested(record["metrics"]["test"], *metric.split(".")))


def told_apart(record: Record) -> dict[str, dict[Column, float]]:
    """Of a run of ``test_open``: measure of doubt, in words → how well it tells new images from base ones, by column."""
    measures = nested(record["metrics"]["test"], "open", "auroc")
    found = {
        name: {column: metric_of(record, f"open.{key}.{name}") for column, key in APART.items()}
        for name in (measures if isinstance(measures, dict) else ())
    }
    return {
        name.replace("_", " "): {
            column: value for column, value in values.items() if value is not None
        }
        for name, values in found.items()
    }


def collect(folder: str | Path, metric: str = "accuracy") -> list[Table]:
    """The tables of all protocols whose runs lie in a folder, of one metric; runs that lack it are left out.

    Raises:
        UserError: no record there, or none has that metric.
    """
    found: dict[str, dict[Key, Row]] = {}
    samples: dict[tuple[str, str, str, int], set[str]] = {}
    backbones: dict[str, set[str]] = {}
    lacking = 0
    for part in (
        sorted(path.name for path in Path(folder).iterdir() if path.is_dir())
        if Path(folder).is_dir()
        else ()
    ):
        for path, record in read_records(Path(folder) / part):
            placed = place(part, path, record)
            if placed is None:
                continue
            name, key, column = placed
            for skipped, names in record.get("skipped_images", {}).items():
                log.warning(
                    "not on all images: %s/%s skipped %d %s image%s that could not be read",
                    part,
                    path.parent,
                    len(names),
                    skipped,
                    "" if len(names) == 1 else "s",
                )
            is_open = name == "open" and metric == "accuracy"
            values = {
                column: metric_of(record, dotted)
                for column, dotted in (OPEN if is_open else {column: metric}).items()
            }
            if None in values.values():
                lacking += 1
                continue
            row = found.setdefault(name, {}).setdefault(key, Row(key))
            row.add(record["seed"], values)
            for measure, figures in told_apart(record).items() if is_open else ():
                found.setdefault("open, by doubt", {}).setdefault(
                    (*key, measure), Row((*key, measure))
                ).add(record["seed"], figures)
            tests_one_training = name not in ("fewshot", "zeroshot")
            row.tested.setdefault(
                record["seed"] if tests_one_training else (record["seed"], column), set()
            ).add((record["prompts_hash"], record["backbone_hash"]))
            samples.setdefault((part, path.parts[0], path.parts[1], record["seed"]), set()).add(
                record["split_hash"]
            )
            row.backbones.add(record["config"]["MODEL"]["BACKBONE"]["NAME"])
            backbones.setdefault(record["config"]["MODEL"]["BACKBONE"]["NAME"], set()).add(
                record["backbone_hash"]
            )
    if lacking:
        log.warning("left out: %d run(s) that have no %s", lacking, metric)
    if not found and lacking:
        raise UserError(
            f"none of the runs below {folder} has the metric {metric!r}; it is a key of their {FILE_NAME}, such as "
            "accuracy, macro_f1, ece, nll, uncertainty.max_probability.aurc"
        )
    if not found:
        raise UserError(
            f"no run record in a protocol's folder below {folder}: run scripts/cdc/demo.sh or run.py first"
        )
    for (part, data, shots, seed), hashes in samples.items():
        if len(hashes) > 1:
            log.warning(
                "not comparable: %s/%s/%s, seed %s: the runs used %d different samples",
                part,
                data,
                shots,
                seed,
                len(hashes),
            )
    for name, hashes in backbones.items():
        if len(hashes) > 1:
            log.warning(
                "not comparable: the backbone %s had %d different weights in these runs",
                name,
                len(hashes),
            )
    return tables(found, metric)


def tables(found: dict[str, dict[Key, Row]], metric: str) -> list[Table]:
    """Puts columns and derived figures to the rows of each protocol; adds averages over data sets."""
    made = []
    sources = found.pop("source", {})
    for name, by_key in sorted(found.items()):
        for key, row in by_key.items():
            if name.startswith(("xd", "dg")) and key in sources:
                row.values["source"] = sources[key].values["source"]
                for seed, hashes in sources[key].tested.items():
                    row.tested.setdefault(seed, set()).update(hashes)
            for seed, hashes in row.tested.items():
                if len(hashes) > 1:
                    log.warning(
                        "not one run: %s, seed %s: its parts were tested with different prompts",
                        label(key),
                        seed,
                    )
        rows = list(by_key.values())
        columns = list(dict.fromkeys(column for row in rows for column in row.values))
        if name == "base2new":
            table = Table(
                "base-to-new",
                rows,
                ["base", "new"],
                {"H": harmonic_mean} if metric in SHARES else {},
                of_means=("H",),
            )
        elif name == "open":
            derived = (
                {"H": lambda values: harmonic_mean(values[:2])} if metric == "accuracy" else {}
            )
            table = Table(
                "base and new together",
                rows,
                list(OPEN) if metric == "accuracy" else columns,
                derived,
                of_means=("H",),
            )
        elif name == "open, by doubt":
            table = Table(
                "base and new together, told apart by doubt",
                rows,
                list(APART),
                heads=(*HEADS, "doubt"),
            )
        elif name == "factors":
            columns = list(FACTOR_PARTS.values())
            table = Table(
                "a factor that goes with the class",
                rows,
                columns,
                {"drop": lambda values: values[0] - values[2]},
            )
        elif name == "fewshot":
            table = Table("few-shot, by shots", rows, sorted(columns, key=int))
        elif name == "zeroshot":
            table = Table("zero-shot", rows, columns)
        else:
            protocol, source = name.split(" ", 1)
            title = {"xd": "cross-data-set", "dg": "domain generalisation"}[protocol]
            columns = ["source", *sorted(set(columns) - {"source"})]
            table = Table(
                f"{title} from {source}",
                rows,
                columns,
                {"average": lambda values: statistics.mean(values[1:])},
            )
        for row in rows:
            partly = sorted(
                {seed for seeds in row.values.values() for seed in seeds}
                - set(row.seeds(table.columns))
            )
            is_for_open = (
                name == "base2new" and "new" not in row.values and row.key in found.get("open", {})
            )
            if partly and not is_for_open:
                log.warning(
                    "left out: %s seed(s) %s, of which only a part is done",
                    label(row.key),
                    ", ".join(map(str, partly)),
                )
        table.rows = [row for row in rows if row.seeds(table.columns)]
        table.rows += averages(table)
        table.title += "" if metric == "accuracy" else f", {metric}"
        first = table.columns[0]
        table.rows.sort(
            key=lambda row: (
                row.key[0].startswith("average"),
                row.key[0],
                row.key[1] or 0,
                statistics.mean(table.figures(row)[first]),
            )
        )
        made.append(table)
    return made


def averages(table: Table) -> list[Row]:
    """For each trainer and config with several data sets the row of their mean, over the seeds that all of them have.

    Derived figures follow from the means, as papers print them: the average H is that of the mean base and new accuracy.
    """
    groups: dict[Key, list[Row]] = {}
    added = []
    for row in table.rows:
        groups.setdefault(row.key[1:], []).append(row)
    for key, rows in groups.items():
        seeds = set.intersection(*(set(row.seeds(table.columns)) for row in rows))
        if len(rows) > 1 and seeds:
            mean = {
                column: {
                    seed: statistics.mean(row.values[column][seed] for row in rows)
                    for seed in sorted(seeds)
                }
                for column in table.columns
            }
            added.append(
                Row(
                    (f"average of {len(rows)}", *key),
                    mean,
                    backbones=set().union(*(row.backbones for row in rows)),
                )
            )
    return added


def label(key: Key) -> str:
    return " ".join(str(part) for part in key if part is not None)


def print_tables(args: argparse.Namespace) -> None:
    """
    Raises:
        UserError: see ``collect``; also for published figures of another metric.
    """
    made = collect(args.folder, args.metric)
    if args.published and args.metric != "accuracy":
        raise UserError(
            f"--published: only accuracies are published, leave out --metric {args.metric}"
        )
    for table in made if args.seed_h else ():
        table.of_means = ()
    write_out(render_all(made, args.format, comparisons if args.published else None), args.output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = table_arguments(__doc__, "output/base2new, output/fewshot, output/transfer …")
    parser.add_argument(
        "--metric",
        default="accuracy",
        help="key of the records' metrics, with dots between levels (accuracy)",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="beside each figure that papers have: theirs, and the difference in points and in "
        "standard deviations",
    )
    parser.add_argument(
        "--seed-h",
        action="store_true",
        help="H of each seed, mean and deviation, in place of the H of the means",
    )
    return run_table_command(print_tables, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

"""Do factors that have nothing to do with the class pull the answers? Tables on the protocol ``factors``.

    python -m analysis.factors output/factors [--format text|markdown|csv|latex|html] [--output FILE]

Everything in percent, mean ± sample standard deviation over seeds; what the factors are: datasets/drawn/factors.py.

**A factor that goes with the class.** Accuracy on the same emojis where the factor has the class's own level (aligned), any level
(independent), another class's level (reversed); the *drop*, aligned − reversed; *flipped*, the share of emojis whose answer is not the
same aligned and reversed; and *worst group*, the lowest accuracy of a group (Sagawa et al., 2020, "Distributionally Robust Neural Networks
for Group Shifts", where a group is a class with an attribute's level). There are too few test images for classes × levels: a group
here is a level of the factor, shown to classes that it belongs to or to others, over the aligned and reversed images; as long as one has
fewer than 10 images, the two smallest are one. Zero-shot CLIP has seen no correlation: its drop is what the pairing of classes and
levels alone does.

**What moves the answers.** The information flow from each factor to the answer (Ay and Polani, 2008, "Information Flows in Causal
Systems", all else imposed): an emoji's picture is composed with every level of the factor, all else as it is in the independent version; since the
picture determines the answer, the mutual information between a uniform level and the answer is the entropy of the answers. The table has
its mean over emojis, as a share of the levels' entropy, ln 5 nats: 0 where the factor moves no answer, 100 where every level has another one.
It is over every second test image of each run's classes.

**What the image features hold.** Accuracy of a linear probe (Alain and Bengio, 2017, "Understanding Intermediate Layers Using Linear
Classifier Probes"; logistic regression on standardised features, 5-fold cross-validation) that reads a factor, or the class, out of
each template's features of the independent test images; *chance* is the share of the most frequent answer. Prompts in the text alone leave
the features as zero-shot CLIP has them.

The last two need the trained prompts: what they found is kept in the run's folder, in factors.json.
"""

import argparse
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from results.render import render_all, run_table_command, table_arguments, write_out
from results.rows import HEADS, Key, Row, Table
from results.runs import PREDICTIONS, Arrays, read_answers
from results.table import FACTOR_PARTS, place, read_records
from trainers.common.errors import UserError
from trainers.common.record_file import Record

log = logging.getLogger(__name__)
ANSWER_COLUMNS = ("worst group", "flipped")


def find(folder: str | Path) -> dict[Key, dict[int, dict[str, tuple[str, Record]]]]:
    """key of a row → seed → column (``aligned`` …) → (folder of the run, its record).

    Raises:
        UserError: there is no run of the protocol, or a record can't be read.
    """
    found: dict[Key, dict[int, dict[str, tuple[str, Record]]]] = {}
    for part in FACTOR_PARTS:
        root = Path(folder) / part
        for path, record in read_records(root):
            placed = place(part, path, record)
            if placed is not None:
                found.setdefault(placed[1], {}).setdefault(record["seed"], {})[
                    FACTOR_PARTS[part]
                ] = (str((root / path).parent), record)
    if not found:
        raise UserError(
            f"no run of the protocol factors below {folder}: run.py --protocol factors makes them"
        )
    whole = {
        key: {seed: runs for seed, runs in seeds.items() if len(runs) == len(FACTOR_PARTS)}
        for key, seeds in found.items()
    }
    for key, seeds in found.items():
        partly = sorted(seeds.keys() - whole[key].keys())
        if partly:
            log.warning(
                "left out: %s seed(s) %s, of which only a part is done",
                " ".join(map(str, key)),
                ", ".join(map(str, partly)),
            )
    return {key: seeds for key, seeds in whole.items() if seeds}


def answers_of(folder: str | Path) -> Arrays:
    """
    Raises:
        UserError: the run has none, or they can't be read.
    """
    found = read_answers(Path(folder) / PREDICTIONS)
    if found is None:
        raise UserError(f"{folder} lacks {PREDICTIONS}: run it again with this version")
    return found


def add(rows: dict[Key, Row], key: Key, values: Mapping[str, float], seed: int) -> None:
    """Puts a seed's values, by column, into the row of that key, which is made where there is none."""
    row = rows.setdefault(key, Row(key))
    for column, value in values.items():
        row.values.setdefault(column, {})[seed] = value


def collect(folder: str | Path) -> list[Table]:
    """The three tables described above.

    Raises:
        UserError: no run of the protocol lies there, or one can't be read or loaded.
    """
    from datasets.drawn.factors import (
        FACTORS,
        LEVELS,
    )  # here, since they take seconds: wrong arguments are answered at once

    from .factor_measures import OBJECT, measured_on_answers, measures_of

    found = find(folder)
    answered: dict[Key, Row] = {}
    flows: dict[Key, Row] = {}
    probes: dict[Key, Row] = {}
    made: dict[tuple[str | None, ...], dict[str, Any]] = {}
    with tqdm(
        total=sum(map(len, found.values())), unit="run", dynamic_ncols=True, disable=None
    ) as bar:
        for key, seeds in sorted(found.items()):
            for seed, runs in sorted(seeds.items()):
                factor = runs["aligned"][1]["config"]["DATASET"]["FACTORS"]["CORRELATED"]
                accuracy = {
                    column: record["metrics"]["test"]["accuracy"]
                    for column, (_, record) in runs.items()
                }
                answers = measured_on_answers(
                    answers_of(runs["aligned"][0]), answers_of(runs["reversed"][0]), factor
                )
                add(answered, key, {**accuracy, **answers}, seed)
                measures = measures_of(*runs["aligned"], made)
                add(
                    flows,
                    key,
                    {
                        name: 100 * value / math.log(LEVELS)
                        for name, value in measures["flow"].items()
                    },
                    seed,
                )
                for number, template in enumerate(measures["probes"], 1):
                    add(probes, (*key, f"{number} of {len(measures['probes'])}"), template, seed)
                add(probes, (key[0], key[1], "chance", "", ""), measures["chance"], seed)
                bar.update()
    columns = [*FACTOR_PARTS.values(), *ANSWER_COLUMNS]
    return [
        Table(
            "A factor that goes with the class",
            list(answered.values()),
            columns,
            {"drop": lambda values: values[0] - values[2]},
        ),
        Table("What moves the answers: information flow", list(flows.values()), list(FACTORS)),
        Table(
            "What the image features hold: linear probes",
            list(probes.values()),
            [*FACTORS, OBJECT],
            heads=(*HEADS, "template"),
        ),
    ]


def run(args: argparse.Namespace) -> None:
    write_out(render_all(collect(args.folder), args.format), args.output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = table_arguments(__doc__, "output/factors, or where else the protocol's runs lie")
    return run_table_command(run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

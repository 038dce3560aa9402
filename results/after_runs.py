"""The last lines of ``run.py``: the runs' accuracies, or the tables of their protocols."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from pandas import Series
from tabulate import tabulate

from protocols.plan import LINE, PlannedRun, by_line, default_output, is_recorded, seeds_of
from trainers.common.record_file import nested

from .ablation import collect_ablations, render_ablations
from .experiment import split
from .render import legend, name_with_mark, render_all, summary
from .runs import collect, read_run
from .table import tables


def tables_of_runs(runs: Sequence[PlannedRun], args: argparse.Namespace) -> str:
    """The tables of the protocols whose runs are made; where only a stage or a shard of them is, the
    accuracies of these.

    args: ``run.py``'s.

    Raises:
        UserError: no run in a protocol's folder is done.
    """
    if args.stage or args.shard != (1, 1):
        return accuracies(runs)
    places = {args.output or default_output(protocol): protocol for protocol in args.protocol}
    return "\n".join(tables_of(protocol, place) for place, protocol in places.items())


def accuracies(runs: Iterable[PlannedRun]) -> str:
    """Return a table of the runs' accuracies: mean and sample standard deviation over the seeds.

    Seeds whose settings differ have a row each. Below the table stands the meaning of a trainer's mark.

    Raises:
        UserError: as ``read_run``.
    """
    rows = []
    trainers = []
    for line, planned in by_line(filter(is_recorded, runs)).items():
        known = {run.seed: (run, read_run(Path(run.folder)).record) for run in planned}
        for seeds in split([record for _, record in known.values()]):
            group, records = zip(*(known[seed] for seed in seeds))
            values = Series(
                [nested(record, "metrics", "test", "accuracy") for record in records], dtype=float
            )
            part, data_set, trainer, *others = line
            name = name_with_mark(str(trainer), records)
            trainers.append(name)
            accuracy = summary(values.mean(), values.std())
            rows.append((part, data_set, name, *others, seeds_of(group), accuracy))
    table = tabulate(rows, [*LINE, "seeds", "accuracy"], "simple", disable_numparse=True)
    return f"{table}\n{legend(trainers)}"


def tables_of(protocol: str, output: str) -> str:
    """The tables of the runs in a folder: the ablation's, or all other protocols'.

    Raises:
        UserError: no run there is done.
    """
    if protocol == "ablation":
        return render_ablations(collect_ablations(output))
    # without base-to-new's where only its trainings are done
    return render_all([table for table in tables(collect(output)) if len(table.frame)])

"""Results that a command keeps as JSON lines, so that a stopped command goes on where it was."""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from pandas import DataFrame, read_json

from trainers.common.environment import first_line

Part = tuple[str, int]  # a kind of folders, or a source of pictures, and a seed


def parser_of(doc: str | None, seeds: Sequence[int]) -> argparse.ArgumentParser:
    """Return the parser of a command with this description, whose seeds are these unless others are given."""
    parser = argparse.ArgumentParser(description=first_line(doc))
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--seeds", nargs="+", type=int, default=[*seeds])
    parser.add_argument("--show", action="store_true", help="only the table of what is kept")
    return parser


def keep_lines(
    args: argparse.Namespace,
    column: str,
    parts: Iterable[Part],
    measure: Callable[[str, int], Iterable[Mapping[str, object]]],
) -> DataFrame:
    """Measure the parts that the results file lacks, unless it is only shown; return all of its lines.

    The lines of a part are appended together.

    Args:
        args: of ``parser_of``.
        column: of a line, that has the first of a part; its second is in the column ``seed``.
        measure: the lines of a part.
    """
    done = set()
    if args.results.exists():
        kept = read_json(args.results, lines=True)
        done = {*zip(kept[column], kept["seed"])}
    for name, seed in parts:
        if args.show or (name, seed) in done:
            continue
        lines = [json.dumps(line) + "\n" for line in measure(name, seed)]
        with open(args.results, "a", encoding="utf-8") as file:
            file.writelines(lines)
    return read_json(args.results, lines=True)

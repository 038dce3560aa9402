"""Says of each figure whether it reproduces the published one: within 2 standard deviations over the seeds, or within 1 point.

    python -m results.check output/base2new output/transfer

Base-to-new, cross-data-set and domain generalisation on ViT-B/16, 16 shots; docs/reproduce.md says what to do where a figure differs.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from trainers.common.errors import UserError, exit_code

from .published import DEVIATIONS, POINTS, comparisons
from .table import collect


def check(args: argparse.Namespace) -> None:
    """
    Raises:
        UserError: there are no runs, or none of which a figure is published.
    """
    lines = []
    for table in (table for folder in args.folders for table in collect(folder)):
        for found in comparisons(table):
            data, _, trainer, config = found.row.key
            seeds = found.row.seeds(table.columns)
            own = f"{found.mean:.2f}" + (
                f" ± {found.deviation:.2f}" if found.deviation is not None else ""
            )
            distance = f"{found.points:+.2f} points" + (
                "" if found.deviations is None else f", {found.deviations:+.1f} deviations"
            )
            lines.append(
                f"{'reproduces' if found.reproduces else 'DIFFERS':10}  {table.title}, {trainer} {config}, {data}, {found.name}: {own} over "
                f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'}, published {found.published:.2f} ({distance})\n"
            )
    if not lines:
        raise UserError(
            f"nothing to compare in {' '.join(args.folders)}: published figures are of ViT-B/16, 16 shots, base-to-new and transfer from "
            "ImageNet (results/published.yaml)"
        )
    sys.stdout.write("".join(lines))
    right = sum(line.startswith("reproduces") for line in lines)
    sys.stdout.write(
        f"{right} of {len(lines)} figures reproduce (within {DEVIATIONS:g} standard deviations or {POINTS:g} point)\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", help="output/base2new, output/transfer …")
    logging.basicConfig(format="%(levelname)s: %(message)s")
    return exit_code(check, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

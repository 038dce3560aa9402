"""Do the templates of a run differ? How each of them votes, what it asks for, and where it looks.

    python -m analysis.templates output/base2new [--root data] [--format text|markdown|csv|latex|html] [--output FILE] [--figures FOLDER]

Of every run whose templates vote (CDC): how far apart the templates were before and after training, each template's own accuracy
beside the fused answer's, agreement and Cohen's kappa of the votes, cosines between the templates' text features, and the words that are
nearest to their context tokens. With --root, the folder of the data
sets, also cosines between image features, where the image encoder is prompted. ± is the sample standard deviation over seeds. --figures
draws them, and with --root occlusion maps of a few images, as PNG and SVG for light and for dark pages.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from results.render import render_all, run_table_command, table_arguments, write_out
from trainers.common.errors import UserError

log = logging.getLogger(__name__)


def run_command(args: argparse.Namespace) -> None:
    """
    Raises:
        UserError: no run with several templates is in or below one of the folders, or a file can't be read.
    """
    # here, since they take seconds: wrong arguments are answered at once
    from results.report.figures import write_figure
    from results.report.gallery import check_root
    from results.report.inspections import with_templates
    from results.report.template_figures import template_figures
    from results.report.template_tables import (
        accuracy_tables,
        cosine_tables,
        evidence_tables,
        matrix_tables,
        word_tables,
    )
    from results.runs import find_runs, group, titles, with_answers

    from .inspection import inspect_all

    check_root(args.root)
    runs = find_runs(args.folders)
    every, named = group(runs), titles([run.setting for run in runs])
    series = with_templates(with_answers(every))
    for one in every:
        if not any((other.setting, other.name) == (one.setting, one.name) for other in series):
            log.warning(
                "left out: %s, %s, has no votes of several templates", one.name, named[one.setting]
            )
    if not series:
        raise UserError(
            f"no run in or below {', '.join(map(str, args.folders))} has votes of several templates: train CDC with "
            "TRAINER.CDC.N_TEMPLATES above 1"
        )
    inspections = inspect_all(series, args.root)
    made = [
        *cosine_tables(series, named),
        *evidence_tables(series, named),
        *accuracy_tables(series, named),
        *matrix_tables(series, named, inspections),
        *word_tables(series, named, inspections),
    ]
    text = render_all(made, args.format)
    if args.figures:
        taken: set[str] = set()
        for figure in template_figures(series, named, inspections):
            write_figure(figure, str(Path(args.figures).absolute()), taken)
    write_out(text, args.output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = table_arguments(
        __doc__,
        "a finished run, or a folder that has some below it",
        "folders",
        nargs="+",
        metavar="RUN_OR_FOLDER",
    )
    parser.add_argument("--root", help="folder of the data sets, for what needs the images")
    parser.add_argument("--figures", metavar="FOLDER", help="also draw figures, into this folder")
    return run_table_command(run_command, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

"""Makes a report on runs: one self-contained HTML file, and its figures as SVG beside it.

    python -m report output/base2new output/transfer --root data --output report.html

Reads every results.json in or below the given folders and the predictions-test.npz beside it.
Making and viewing it needs no network and no JavaScript. With --root, the folder of the data sets,
the gallery shows the images, not only their names, a map shows which images are alike, and figures
show where each template looks. Where ``python -m experiments.lab.uncertainty`` has left its files,
the histograms of vacuity show new classes and corrupted images, too.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import logging
import sys
from collections.abc import Sequence

from trainers.common import device_names
from trainers.common.errors import exit_code
from trainers.common.imports import importing


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser("python -m report", description=first_line(__doc__))
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="RUN_OR_FOLDER",
        help="a finished run, or a folder of such runs",
    )
    parser.add_argument(
        "--output", default="report.html", help="the page (report.html); the figures go beside it"
    )
    parser.add_argument(
        "--root",
        help="folder of the data sets, for the gallery's pictures and where templates look",
    )
    parser.add_argument("--device", default="auto", help=device_names.HELP)
    args = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)

    def command() -> None:
        # here, since they take seconds: wrong arguments are answered at once
        with importing():
            from labelling.checkout import image_folder  # noqa: F401  (registers ImageFolder)

            from .of_models import model_figures
            from .page import make_report

        make_report(args.folders, args.output, model_figures(args.device), args.root)

    return exit_code(command)


if __name__ == "__main__":
    sys.exit(main())

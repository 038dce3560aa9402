"""What commands that answer with a run are told of it."""

import argparse

from ..evaluation.doubts import CONFIDENCE


def add_run_arguments(
    parser: argparse.ArgumentParser, sources: argparse._MutuallyExclusiveGroup | None = None
) -> None:
    """Adds ``--run``, ``--backbone`` and ``--confidence``, of the command's own ``--max-error``.

    sources: what answers can come from besides a run, one of which is required.
    """
    (sources or parser).add_argument(
        "--run", required=sources is None, help="folder of a finished training, with results.json"
    )
    parser.add_argument(
        "--backbone",
        help="name or file of the run's CLIP, if it is no longer where the training found it",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=CONFIDENCE,
        metavar="SHARE",
        help=f"how sure the promise of --max-error is (default: {CONFIDENCE:g})",
    )

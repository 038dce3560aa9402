"""How well calibrated the answers to fresh pictures are under a run's temperature and under the most likely one.

    # what the file does not hold yet; every folder below --root is a folder of class folders
    python -m experiments.temperature --root data/suite --results experiments/temperature.jsonl
    python -m experiments.temperature --results experiments/temperature.jsonl --show

A folder is divided as in ``compare_candidates.py``, and the answers to the test's pictures are judged. A run's
temperature counts one mistake that was not seen (``fit_temperature``); the most likely one counts none, and
ends at its bound where all known pictures are answered right.
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy
import torch
from pandas import DataFrame
from scipy.stats import t
from tabulate import tabulate
from torch import Tensor

from experiments.compare_candidates import SHOTS, fitted, shown_to
from experiments.result_lines import keep_lines, parser_of
from trainers.evaluation.prediction import calibration
from trainers.evaluation.uncertainty import best_temperature

TRAINERS = ("GDA", "TipAdapter", "LinearProbe")
CERTAIN = 0.9995  # a probability that is shown as 100.0 %
shown = cache(partial(shown_to, "tiny"))


def likeliest_temperature(log_probability: Tensor, labels: Tensor) -> float:
    """The temperature in ``TEMPERATURE_BOUNDS`` under which labels (N,) are most likely (Guo et al., 2017, §4.2), by
    log-probabilities (N, K)."""
    log_probability = log_probability.double()
    return best_temperature(log_probability, log_probability.gather(1, labels[:, None])[:, 0])


@torch.no_grad()
def judged(root: Path, folder: str, seed: int) -> Iterator[dict[str, object]]:
    """Yield a line for each number of pictures and trainer."""
    pictures = shown(root / folder)
    for shots, trainer in product(SHOTS, TRAINERS):
        known = pictures.some(shots, seed)
        fit = partial(
            fitted, trainer, pictures.classnames, pictures.backbone, known, pictures.asked
        )
        _, answers = fit()
        with patch("trainers.learners.features.fit_temperature", likeliest_temperature):
            _, likeliest = fit()
        line: dict[str, object] = {
            "folder": folder,
            "seed": seed,
            "shots": shots,
            "trainer": trainer,
        }
        for name, probability in (
            ("", answers.probability),
            (" likeliest", likeliest.probability),
        ):
            certain = probability.amax(dim=1) >= CERTAIN
            line["ece" + name] = round(calibration(probability, pictures.truth)["ece"], 4)
            line["certain" + name] = round(100 * certain.double().mean().item(), 4)
        yield line


def table(lines: DataFrame) -> str:
    """Return a row per number of pictures and trainer: means over folders, ± their deviation over the seeds, and
    the interval of the difference over folders."""
    rows = []
    for (shots, trainer), own in lines.groupby(["shots", "trainer"], sort=False):
        by_folder = own.groupby("folder")[["ece", "ece likeliest"]].mean()
        excess = by_folder["ece"] - by_folder["ece likeliest"]
        low, high = excess.mean() + excess.sem() * numpy.array(t.interval(0.95, len(excess) - 1))
        rows.append(
            {
                "pictures per class": shots or "all",
                "trainer": trainer,
                "ECE": over_seeds(own, "ece"),
                "most likely temperature": over_seeds(own, "ece likeliest"),
                "difference (95 %)": f"{excess.mean():+.1f} ({low:+.1f} … {high:+.1f})",
                "higher in": f"{(excess > 0).sum()} of {len(excess)} folders",
                "answers of 100.0 %": over_seeds(own, "certain"),
                "most likely": over_seeds(own, "certain likeliest"),
            }
        )
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def over_seeds(lines: DataFrame, column: str) -> str:
    """Return the mean over folders, ± its deviation over the seeds."""
    means = lines.groupby("seed")[column].mean()
    return f"{means.mean():.1f} ± {means.std():.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, seeds=(1, 2, 3))
    parser.add_argument(
        "--root", type=Path, default=Path("data"), help="folder of folders of class folders"
    )
    args = parser.parse_args(arguments)
    found = [] if args.show else sorted(each.name for each in args.root.iterdir() if each.is_dir())
    parts = product(found, args.seeds)
    print(table(keep_lines(args, "folder", parts, partial(judged, args.root))))


if __name__ == "__main__":
    main()

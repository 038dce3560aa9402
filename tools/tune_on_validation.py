"""Compares settings of a trainer base-to-new on *validation* images, so that the test images stay unseen until the end.

    python tools/tune_on_validation.py --trainer CDC --recipe tiny --dataset openmoji --seeds 1 2 3 \
        --setting "" --setting "OPTIM.LR 0.01" --setting "OPTIM.LR 0.01 TRAINER.CDC.EVIDENCE_START 3.0"

Each setting is a list of KEY VALUE pairs on top of the recipe. Trained on base classes, judged on the base and the new
classes' validation images; runs go to ``output/tuning`` and are not repeated.
"""
import argparse
import json
import logging
import statistics
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from tabulate import tabulate  # noqa: E402

import train  # noqa: E402
from protocols import Job, recipe_path  # noqa: E402
from results.table import harmonic_mean, summary  # noqa: E402
from trainers.run_record import FILE_NAME  # noqa: E402


def validation_accuracy(args, seed, setting):
    """Accuracies (percent) on base and new validation images of one seed, and seconds of training."""
    name = setting.replace(" ", "_").replace("/", "-") or "recipe"
    accuracies, seconds, base_folder = [], None, None
    for classes in ("base", "new"):
        folder = Path(args.output) / args.dataset / args.trainer / args.recipe / name / classes / f"seed{seed}"
        if not (folder / FILE_NAME).exists():
            job = Job(str(folder), args.trainer, recipe_path(args.trainer, args.recipe), args.dataset, classes, args.shots, seed,
                      None if base_folder is None else str(base_folder))
            train.run(train.parse_arguments(job.arguments(args.root, ["TEST.SPLIT", "val", *setting.split()])))
        record = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        accuracies.append(record["metrics"]["val"]["accuracy"])
        base_folder, seconds = base_folder or folder, seconds or record["seconds"]["train"]
    return accuracies, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--dataset", default="openmoji")
    parser.add_argument("--root", default="data")
    parser.add_argument("--output", default="output/tuning")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--setting", action="append", help='"KEY VALUE KEY VALUE"; may be given many times; "" is the recipe itself')
    args = parser.parse_args()
    rows = []
    for setting in args.setting or [""]:
        results = [validation_accuracy(args, seed, setting) for seed in args.seeds]
        base, new = zip(*(accuracies for accuracies, _ in results))
        h = [harmonic_mean(pair) for pair in zip(base, new)]
        rows.append([setting or "(recipe)", summary(base), summary(new), summary(h), f"{statistics.mean(s for _, s in results):.0f}"])
        logging.getLogger().handlers[:] = []
        sys.stderr.write(tabulate(rows, headers=("setting", "base val", "new val", "H", "s"), disable_numparse=True) + "\n\n")
    sys.stdout.write(tabulate(rows, headers=("setting", "base val", "new val", "H", "s"), disable_numparse=True) + "\n")


if __name__ == "__main__":
    main()

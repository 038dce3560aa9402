"""Compares settings of any method by cross-validation on training and validation images; no test image is opened.

    # trains what the file does not hold yet
    python -m experiments.cross_validate experiments/cross_validation.yaml --results cdc.jsonl
    # tables and, with --figure, the picture
    python -m experiments.cross_validate experiments/cross_validation.yaml --results cdc.jsonl --show

The tasks: OpenMoji, its people, and the class folders of further pictures below <root>/suite/<task>,
each trained on its base classes and, with the halves swapped, on its new ones, as
``<task>_swapped``; a fold a seed (experiments/folds.py). Prompts are judged on all images that were not
trained on (*base*) and on all images of the other half (*new*), as they are and, where the pictures
are drawn here, in three other styles; beside them the images trained on (*train*), how well doubt
tells images of the other half from held-out ones under the base prompts (*unknown*), and
calibration after a fit to every other held-out image, of CDC's reliabilities or of another method's
temperature (*fit*). Each result is a line of the file, appended when it is known.

The YAML file lists settings as configs/ablations does, one of whose files can be given, too; PREC
is amp where a setting has none. ``shares_view: true`` shows all templates the same augmented view, and
``by_accuracy: true`` chooses GDA's α as its authors do (experiments/folds.py). A task counts once: means are over tasks of means over folds and
directions. Differences to --first are paired; their intervals are Student's t over the tasks, of at
least five (results/comparison.py), and sentences say of H whether they are real.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import contextlib
import io
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby, product
from pathlib import Path

import torch
from dassl.utils import set_random_seed
from torch import Tensor

from experiments.comparison import (
    SWAPPED,
    Fields,
    difference_table,
    differences,
    draw,
    table,
    task_of,
    verdicts,
)
from experiments.folds import IMAGES_AT_ONCE, Pictures, fit_features, split, train_on
from experiments.lab.image_groups import log_of, scaled, told_apart
from experiments.methods import recipe_path
from labelling.checkout import image_folder  # noqa: F401  (registers ImageFolder)
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from protocols.training import build
from results.rows import harmonic_mean
from results.svg import SVG_MARK
from trainers.common.config_files import CONFIGS
from trainers.common.errors import UserError, run_tool
from trainers.common.files import check_output, write_text
from trainers.common.readers import read_yaml
from trainers.evaluation.prediction import calibration, measure, percent_right
from trainers.evaluation.uncertainty import fit_temperature
from trainers.learners.features import is_feature_classifier
from trainers.method import Method
from trainers.trainer import MethodTrainer

EARLY = ("ProLIP", "TipAdapterF")  # see all training images before the first step
log = logging.getLogger("cross_validate")

DRAWN = {"openmoji": "openmoji", "people": "openmoji_people"}  # task → data set
# ending of a row's task → the half to train on, and the other
DIRECTIONS = {"": ("base", "new"), SWAPPED: ("new", "base")}


def new_trainer(
    setting: Fields, task: str, half: int, seed: int, root: str, folder: str
) -> MethodTrainer:
    """The trainer of a setting on all images of the training half (1) or of the other (2); it
    writes to the folder."""
    name = task_of(task)
    trainer = setting.get("trainer", "CDC")
    dataset = DRAWN.get(name, "image_folder")
    named = {
        "--root": root if name in DRAWN else f"{root}/suite/{name}",
        "--seed": seed,
        "--trainer": trainer,
        "--dataset-config-file": f"{CONFIGS}/datasets/{dataset}.yaml",
        "--config-file": recipe_path(trainer, setting.get("recipe", "{}").replace("{}", "tiny")),
        "--output-dir": folder,
    }
    fixed = {
        "DATASET.SUBSAMPLE_CLASSES": DIRECTIONS[task.removeprefix(name)][half - 1],
        "TEST.NO_TEST": "True",
        "TRAIN.CHECKPOINT_FREQ": "0",
        "DATALOADER.NUM_WORKERS": "0",
    }
    precision = {f"TRAINER.{trainer.upper()}.PREC": "amp"}  # half the time, by bfloat16
    words = {**named, **precision, **setting.get("settings", {}), **fixed}
    cfg = build_config(parse_arguments([str(word) for pair in words.items() for word in pair]))
    set_random_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):  # Dassl prints what it builds
        made = build(cfg)
    if trainer in EARLY:
        why = "is fitted to all training images, held-out ones among them, before the first step"
        raise UserError(f"{trainer} {why}: leave it out")
    return made


@torch.no_grad()
def logits_of(method: Method, images: Tensor) -> Tensor:
    """(M, N, K) for images (N, 3, H, W)."""
    with method.towers.autocast():
        encoded = method.encode()
    parts = images.split(IMAGES_AT_ONCE)
    return torch.cat([method(part[None].float(), encoded).logits for part in parts], dim=1)


def accuracy(method: Method, images: Tensor, labels: Tensor) -> float:
    """Right answers to images (N, 3, H, W) in percent."""
    probability = method.predict(logits_of(method, images)).probability
    return percent_right(probability.argmax(dim=1), labels)


def pictures_of(task: str, root: str) -> Pictures:
    """A task's images, for all settings, with CDC's views."""
    with tempfile.TemporaryDirectory() as folder:
        trained, other = (new_trainer({}, task, half, 1, root, folder) for half in (1, 2))
    return Pictures(trained, other, task_of(task) in DRAWN)


def train(
    setting: Fields, task: str, seed: int, pictures: Pictures, root: str
) -> tuple[MethodTrainer, MethodTrainer]:
    """Trains a setting on a task's fold: the trainer, and one of what it learned for the other half's
    classes."""
    chosen, _ = split(pictures.trained.labels, seed)
    with tempfile.TemporaryDirectory() as folder:
        trained, other = (new_trainer(setting, task, half, seed, root, folder) for half in (1, 2))
        if trained.model.learns:
            if is_feature_classifier(trained.model):
                fit_features(trained.model, pictures, chosen, seed, "by_accuracy" in setting)
            else:
                train_on(trained, pictures, chosen, "shares_view" in setting)
            other.model.load(trained.model.learned.state_dict(), trained.model.classnames)
            other.set_model_mode("eval")
    return trained, other


def judge(setting: Fields, task: str, seed: int, pictures: Pictures, root: str) -> Fields:
    """Trains a setting on a task's fold and returns its line."""
    chosen, held_out = split(pictures.trained.labels, seed)
    trained, other = train(setting, task, seed, pictures, root)
    methods = {"base": trained.model, "new": other.model}
    images = {"base": pictures.trained.part(held_out), "new": pictures.other}
    logits = {half: logits_of(methods[half], images[half].centre["plain"]) for half in methods}
    row: Fields = {}
    for half, method in methods.items():
        labels = images[half].labels
        metrics = measure(method.predict(logits[half]), labels, method.classnames)
        row |= {
            half: metrics["accuracy"],
            f"ece_{half}": metrics["ece"],
            f"nll_{half}": metrics["nll"],
        }
        if "template_accuracy" in metrics:
            row[f"worst_{half}"] = min(metrics["template_accuracy"])  # of the templates, each alone
        # None without mistakes
        row[f"mistakes_{half}"] = metrics["uncertainty"]["max_probability"]["error_auroc"]
        _, *styles = images[half].centre.values()  # the first is plain
        if styles:
            rights = [accuracy(method, drawn, labels) for drawn in styles]
            row[f"styles_{half}"] = sum(rights) / len(rights)
    shown = pictures.trained.part(chosen)
    row["train"] = accuracy(trained.model, shown.centre["plain"], shown.labels)
    # how well doubt tells images of other classes from those of known ones; by vacuity if there is one
    asked = logits["base"], logits_of(trained.model, pictures.other.centre["plain"])
    doubts = [trained.model.predict(of).uncertainties() for of in asked]
    by = "vacuity" if "vacuity" in doubts[0] else "max_probability"
    row["unknown"] = told_apart(*(doubt[by] for doubt in doubts))
    for style in ("", "styles_"):
        if f"{style}base" in row:
            row[f"{style}H"] = harmonic_mean((row[f"{style}base"], row[f"{style}new"]))
    fitted = fitted_answers(methods, logits, images["base"].labels)
    for half, labels in (("base", images["base"].labels[1::2]), ("new", images["new"].labels)):
        measures = calibration(fitted[half], labels)
        row |= {f"{name}_fit_{half}": measures[name] for name in ("ece", "nll")}
    figures = {name: round(value, 4) for name, value in row.items() if value is not None}
    return {"setting": setting["name"], "task": task, "seed": seed, **figures}


def fitted_answers(
    methods: dict[str, Method], logits: dict[str, Tensor], labels: Tensor
) -> dict[str, Tensor]:
    """Probabilities of the base images that nothing was fitted on and of the new ones, after the
    fit on every other base image: of CDC's reliabilities, of another method's temperature."""
    base, new = methods.values()
    seen = logits["base"][:, ::2]
    temperature = 1.0
    if base.calibrate(seen, labels[::2]):
        new.load(base.learned.state_dict(), base.classnames)
    else:
        temperature = fit_temperature(log_of(base.predict(seen).probability), labels[::2])
    asked = {"base": logits["base"][:, 1::2], "new": logits["new"]}
    return {half: scaled(methods[half].predict(of), temperature) for half, of in asked.items()}


def read_rows(path: Path) -> list[Fields]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def tasks_below(root: str) -> list[str]:
    """The names of all tasks whose images are there."""
    return [*DRAWN, *sorted(folder.name for folder in Path(root).glob("suite/*"))]


def run(args: argparse.Namespace, settings: Sequence[Fields]) -> None:
    """Trains what the results file lacks."""
    done = {(row["setting"], row["task"], row["seed"]) for row in read_rows(args.results)}
    names = args.tasks or tasks_below(args.root)
    todo = []
    for name, ending, seed, setting in product(names, DIRECTIONS, args.seeds, settings):
        task = name + ending
        if (setting["name"], task, seed) not in done:
            todo.append((task, seed, setting))
    for task, lines in groupby(todo, lambda line: line[0]):
        pictures = pictures_of(task, args.root)
        for _, seed, setting in lines:
            row = judge(setting, task, seed, pictures, args.root)
            with open(args.results, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            log.info("%s", row)


def compare(args: argparse.Namespace) -> None:
    """The whole command."""
    settings = read_yaml(args.experiment)
    if not args.show:
        run(args, settings)
    names = [setting["name"] for setting in settings]
    rows = [row for row in read_rows(args.results) if row["setting"] in names]
    if not rows:
        raise UserError(f"{args.results} has no result of {args.experiment}: leave out --show")
    compared = differences(settings, rows, args.first)
    print(table(settings, rows), difference_table(compared), verdicts(compared), sep="\n\n")
    if args.figure:
        check_output("--figure", args.figure, SVG_MARK)
        titles = {each["name"]: each.get("description", each["name"]) for each in settings}
        write_text(args.figure, draw(compared.rename(titles)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("experiment", help="YAML file of settings")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--root", default="data")
    # commands for other tasks or seeds may run side by side
    parser.add_argument("--tasks", nargs="+", help="for all that are there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--show", action="store_true", help="print the tables and train nothing")
    parser.add_argument("--first", help="setting that differences are to, for the file's first")
    parser.add_argument("--figure", help="SVG file for the picture of the differences in H")
    return run_tool(compare, parser.parse_args(argv), log)


if __name__ == "__main__":
    sys.exit(main())

"""Compares settings of any method by cross-validation on the embedded data sets' training and validation images; no test image is opened.

    python tools/cross_validate.py tools/cross_validation.yaml --results cdc.jsonl     # trains what the file does not hold yet
    python tools/cross_validate.py tools/cross_validation.yaml --results cdc.jsonl --show     # tables and, with --figure, the picture

The suite: OpenMoji, its people, and the other pictures that tools/suite.py lays out, each trained on its base classes and, with the halves
swapped, on its new ones, as ``<task>_swapped``; a fold a seed. A task whose folder is missing is skipped. Of each class a fifth of the images (at least two) is held out, prompts are trained on up to 16 others, and judged on all that were not
trained on (*base*) and on all images of the other half (*new*), as they are and, where the pictures are drawn here, in three other styles;
beside them the images trained on (*train*), how well doubt tells images of the other half from held-out ones under the base prompts
(*unknown*), and calibration after a temperature fitted to every other held-out image (*fit*). Training is the trainer's
own; only its loader is replaced by one that draws from a stock of views made beforehand; where the method leaves the image
encoder alone the stock holds their features. Each result is a line of the file, appended when it is known.

The YAML file lists settings as configs/ablations does. A task counts once: means are over tasks of means over folds
and directions. Differences to --first are paired; their intervals are percentile bootstraps over the tasks.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import suite
import torch
from comparison import SWAPPED, Row, difference_table, differences, draw, table, task_of
from dassl.data.datasets import Datum
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from PIL import Image
from torch import Tensor

from datasets.drawn.emoji_styles import corrupted, recoloured, sketch
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from protocols.plan import CONFIGS, recipe_path
from results.table import harmonic_mean
from trainers.common.errors import UserError, run_tool
from trainers.common.files import check_output
from trainers.common.image_files import background_of, read_picture
from trainers.common.readers import read_yaml
from trainers.evaluation.prediction import Prediction, calibration, percent_right
from trainers.evaluation.uncertainty import auroc, fit_temperature, temperature_scaled
from trainers.features import FeatureMethod
from trainers.method import Method
from trainers.trainer import MethodTrainer

log = logging.getLogger("cross_validate")

SHOTS = 16
HELD_OUT = 5  # one in this many images
STOCK = 8  # random views of each image and template
IMAGES_AT_ONCE = 128
DRAWN = {"openmoji": "openmoji", "people": "openmoji_people"}  # task → data set
TASKS = [*DRAWN, *suite.TASKS]
# ending of a row's task → the half to train on, and the other
DIRECTIONS = {"": ("base", "new"), SWAPPED: ("new", "base")}
STYLES = {style.__name__: style for style in (sketch, recoloured, corrupted)}


@dataclass
class StockLoader:
    """Takes the place of a trainer's training loader: batches of views drawn from a stock.

    Args:
        stock: (R, V, N, …), R random images or features for each of V views and N images.
        frozen: (R, V, N, E), the frozen CLIP's features of the same; labels: (N,).
        chosen: (n,) indices of the images to train on.
        batch_size: B, an incomplete last batch is dropped, as Dassl does.
    """

    stock: Tensor
    frozen: Tensor
    labels: Tensor
    chosen: Tensor
    batch_size: int
    num_workers: ClassVar[int] = 0

    def __len__(self) -> int:
        return len(self.chosen) // self.batch_size

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        order = self.chosen[torch.randperm(len(self.chosen))]
        for images in order[: len(self) * self.batch_size].split(self.batch_size):
            drawn = torch.randint(len(self.stock), images.shape)
            self.shown = self.stock[drawn, :, images].transpose(0, 1).float()  # (V, B, …)
            self.features = self.frozen[drawn, :, images].transpose(0, 1)  # (V, B, E)
            yield {"img": self.shown, "label": self.labels[images]}

    def unprompted_images(self, images: Tensor) -> Tensor:
        """The frozen CLIP's features (v, B / n, E) of every n-th image of v of the batch's views, which a loss asks for."""
        every = -(-self.shown.shape[1] // images.shape[1])
        pairs = list(zip(self.features[:, ::every], self.shown[:, ::every]))
        return stacked(
            next(features for features, view in pairs if torch.equal(view, asked))
            for asked in images
        )


def new_trainer(
    setting: Row, task: str, half: int, seed: int, root: str, folder: str
) -> MethodTrainer:
    """The trainer of a setting on all images of the training half (1) or of the other (2); it writes to the folder."""
    name, trainer = task_of(task), setting.get("trainer", "CDC")
    dataset = DRAWN.get(name, "image_folder")
    named = {
        "--root": root if name in DRAWN else str(suite.folder_of(root, name)),
        "--seed": str(seed),
        "--trainer": trainer,
        "--dataset-config-file": os.path.join(CONFIGS, "datasets", f"{dataset}.yaml"),
        "--config-file": recipe_path(trainer, setting.get("recipe", "tiny")),
        "--output-dir": folder,
    }
    fixed = {
        "DATASET.SUBSAMPLE_CLASSES": DIRECTIONS[task.removeprefix(name)][half - 1],
        "TEST.NO_TEST": "True",
        "TRAIN.CHECKPOINT_FREQ": "0",
        "DATALOADER.NUM_WORKERS": "0",
    }
    words = {**named, **setting.get("settings", {}), **fixed}
    cfg = build_config(parse_arguments([str(word) for pair in words.items() for word in pair]))
    set_random_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):  # Dassl prints what it builds
        made = build_trainer(cfg)
    assert isinstance(made, MethodTrainer)
    if isinstance(made.model, FeatureMethod):
        why = "is fitted to all training images, held-out ones among them, before the first step"
        raise UserError(f"{trainer} {why}: leave it out")
    return made


def stacked(tensors: Iterable[Tensor]) -> Tensor:
    """Tensors one after the other along a new first dimension."""
    return torch.stack(list(tensors))


def images_of(trainer: MethodTrainer) -> list[Datum]:
    return [*trainer.dm.dataset.train_x, *(trainer.dm.dataset.val or [])]


def picture(trainer: MethodTrainer, item: Datum) -> Image.Image:
    """As the loaders read it."""
    return read_picture(item.impath, background_of(trainer.cfg))


class Pictures:
    """The images of a task, made once for all settings.

    Args:
        trainer, other: a trainer on the half that is trained on, and on the other; styles: those that the images are drawn in beside plain.

    Attributes:
        labels, other_labels: (N,) and (N',); centre, other_centre: style (``plain`` among them) → images as they are tested, half precision.
    """

    def __init__(
        self, trainer: MethodTrainer, other: MethodTrainer, styles: Sequence[str] = ()
    ) -> None:
        self.trainer, transform = trainer, cast(Any, trainer.test_loader).dataset.transform

        def tested(items: Sequence[Datum]) -> dict[str, Tensor]:
            pictures = {"plain": [picture(trainer, item) for item in items]}
            for style in styles:
                pictures[style] = [STYLES[style](Path(item.impath).stem, 64) for item in items]
            return {style: stacked(map(transform, of)).half() for style, of in pictures.items()}

        halves = images_of(trainer), images_of(other)
        self.labels, self.other_labels = (
            torch.tensor([item.label for item in items]) for items in halves
        )
        self.centre, self.other_centre = map(tested, halves)

    @cached_property
    def stock(self) -> Tensor:
        """(R, V, N, 3, H, W), half precision: views of the images to train on."""
        set_random_seed(1)
        pictures = [picture(self.trainer, item) for item in images_of(self.trainer)]
        views = self.trainer.views.transforms
        return stacked(
            stacked(stacked(map(view, pictures)) for view in views) for _ in range(STOCK)
        ).half()

    @cached_property
    @torch.no_grad()
    def frozen(self) -> Tensor:
        """(R, V, N, E): the frozen CLIP's features of the stock."""

        def features(images: Tensor) -> Tensor:
            parts = images.split(IMAGES_AT_ONCE)
            return torch.cat([encode(part[None].float())[0] for part in parts])

        encode = self.trainer.model.encode_images
        return stacked(stacked(map(features, drawn)) for drawn in self.stock)


def split(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the images to train on, up to ``SHOTS`` a class, and of the held-out ones: all others, at least a fifth of each class."""
    by_class: dict[int, list[int]] = {}
    for index in random.Random(seed).sample(range(len(labels)), len(labels)):
        by_class.setdefault(int(labels[index]), []).append(index)
    chosen = sorted(
        index
        for members in by_class.values()
        for index in members[max(2, round(len(members) / HELD_OUT)) :][:SHOTS]
    )
    others = sorted(set(range(len(labels))).difference(chosen))
    return torch.tensor(chosen), torch.tensor(others)


def train_on(trainer: MethodTrainer, pictures: Pictures, chosen: Tensor) -> None:
    """Trains the prompts as the trainer does, on views of the chosen images."""
    items = images_of(trainer)
    # what some look at before the first step
    trainer.dm.dataset.train_x[:] = [items[index] for index in chosen]
    views = len(trainer.views.transforms)  # a method with fewer views takes the first
    stock, frozen = pictures.stock[:, :views], pictures.frozen[:, :views]
    batch_size = trainer.cfg.DATALOADER.TRAIN_X.BATCH_SIZE
    loader = StockLoader(stock, frozen, pictures.labels, chosen, batch_size)
    replaced: Any = trainer
    replaced.train_loader_x = loader
    replaced.parse_batch_train = lambda batch: (batch["img"], batch["label"])
    for module in trainer.model.modules():
        if isinstance(module, Method):  # also one that the method builds on
            cast(Any, module).unprompted_images = loader.unprompted_images
    replaced.validation_images = lambda: None  # they are among the held-out ones
    replaced.save_model = replaced.checkpoints.save_prompts_again = lambda *_, **__: None
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        trainer.train()
    trainer.set_model_mode("eval")


@torch.no_grad()
def answers(trainer: MethodTrainer, images: Tensor) -> Prediction:
    """``Prediction`` for images (N, 3, H, W)."""
    model = trainer.model
    with model.autocast():
        encoded = model.encode()
    parts = images.split(IMAGES_AT_ONCE)
    logits = [model(part[None].float(), encoded).logits for part in parts]  # (M, B, K) each
    return model.predict(torch.cat(logits, dim=1))


def accuracy(trainer: MethodTrainer, images: Tensor, labels: Tensor) -> float:
    return percent_right(answers(trainer, images).probability.argmax(dim=1), labels)


def judge(setting: Row, task: str, seed: int, pictures: Pictures, root: str) -> Row:
    """Trains a setting on a task's fold and returns its line."""
    chosen, held_out = split(pictures.labels, seed)
    with tempfile.TemporaryDirectory() as folder:
        trained, other = (new_trainer(setting, task, half, seed, root, folder) for half in (1, 2))
        if trained.model.learns:
            train_on(trained, pictures, chosen)
            other.model.load(trained.model.learner.state_dict(), trained.model.classnames)
            other.set_model_mode("eval")
    row: Row = {"setting": setting["name"], "task": task, "seed": seed}
    predicted, temperature = {}, 1.0
    for half, trainer, labels, centre, selected in (
        ("base", trained, pictures.labels[held_out], pictures.centre, held_out),
        ("new", other, pictures.other_labels, pictures.other_centre, slice(None)),
    ):
        predicted[half] = answers(trainer, centre["plain"][selected])
        probability = predicted[half].probability
        answer = probability.argmax(dim=1)
        log_probability = probability.clamp(min=torch.finfo(probability.dtype).tiny).log()
        measured = slice(None)
        if half == "base":
            temperature = fit_temperature(log_probability[::2], labels[::2])
            measured = slice(1, None, 2)
        scaled = temperature_scaled(log_probability[measured], temperature)
        row[half] = percent_right(answer, labels)
        for name, of in (
            (half, (probability, labels)),
            (f"fit_{half}", (scaled, labels[measured])),
        ):
            measures = calibration(*of)
            row |= {f"{measure}_{name}": measures[measure] for measure in ("ece", "nll")}
        doubt = 1 - probability.max(dim=1).values
        row[f"mistakes_{half}"] = auroc(doubt, answer != labels) or 0.0
        styled = [
            accuracy(trainer, centre[style][selected], labels)
            for style in centre
            if style in STYLES
        ]
        if styled:
            row[f"styles_{half}"] = sum(styled) / len(styled)
    row["train"] = accuracy(trained, pictures.centre["plain"][chosen], pictures.labels[chosen])
    row["unknown"] = unknown(predicted["base"], answers(trained, pictures.other_centre["plain"]))
    for style in ("", "styles_"):
        if f"{style}base" in row:
            row[f"{style}H"] = harmonic_mean((row[f"{style}base"], row[f"{style}new"]))
    return {
        key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()
    }


def unknown(known: Prediction, others: Prediction) -> float:
    """How well doubt tells images of other classes from those of known ones: area under the ROC curve in %; by vacuity if there is one."""
    doubts = [prediction.uncertainties() for prediction in (known, others)]
    by = "vacuity" if "vacuity" in doubts[0] else "max_probability"
    values = torch.cat([of[by] for of in doubts])
    return auroc(values, torch.arange(len(values)) >= len(doubts[0][by])) or 0.0


def read_rows(path: Path) -> list[Row]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def run(args: argparse.Namespace, settings: Sequence[Row]) -> None:
    """Trains what the results file lacks, of n shards each every n-th line."""
    done = {(row["setting"], row["task"], row["seed"]) for row in read_rows(args.results)}
    here = [
        name for name in args.tasks if name in DRAWN or suite.folder_of(args.root, name).is_dir()
    ]
    if missing := ", ".join(name for name in args.tasks if name not in here):
        text = "Skipped, their pictures are not below %s (tools/suite.py fetches them): %s"
        log.warning(text, args.root, missing)
    todo = [
        (task, seed, setting)
        for name in here
        for task in (name + ending for ending in DIRECTIONS)
        for seed in args.seeds
        for setting in settings
        if (setting["name"], task, seed) not in done
    ]
    number, count = args.shard
    if count > 1:
        torch.set_num_threads(1)
    pictures: dict[str, Pictures] = {}
    for task, seed, setting in todo[number - 1 :: count]:
        if task not in pictures:
            styles = [*STYLES] if task_of(task) in DRAWN else []
            with tempfile.TemporaryDirectory() as folder:
                trained = new_trainer({}, task, 1, 1, args.root, folder)  # with CDC's views
                other = new_trainer({}, task, 2, 1, args.root, folder)
                pictures = {task: Pictures(trained, other, styles)}
        row = judge(setting, task, seed, pictures[task], args.root)
        with open(args.results, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        log.info("%s", row)


def compare(args: argparse.Namespace) -> None:
    """The whole command."""
    settings = read_yaml(args.experiment)
    if not args.show:
        run(args, settings)
    if args.shard[1] == 1:
        names = [setting["name"] for setting in settings]
        rows = [row for row in read_rows(args.results) if row["setting"] in names]
        if not rows:
            raise UserError(f"{args.results} has no result of {args.experiment}: leave out --show")
        compared = differences(settings, rows, args.first)
        print(table(settings, rows), difference_table(compared), sep="\n\n")
        if args.figure:
            check_output("--figure", args.figure, "Matplotlib")
            draw(compared, args.figure)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", help="YAML file of settings")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--root", default="data")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--shard",
        type=int,
        nargs=2,
        default=(1, 1),
        metavar=("I", "N"),
        help="train every N-th from the I-th on: start all N at once",
    )
    parser.add_argument("--show", action="store_true", help="print the tables and train nothing")
    parser.add_argument("--first", help="setting that differences are to, for the file's first")
    parser.add_argument("--figure", help="file for the picture of the differences in H")
    return run_tool(compare, parser.parse_args(argv), log)


if __name__ == "__main__":
    sys.exit(main())

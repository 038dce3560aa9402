"""Compares settings of a method by cross-validation on training and validation images, so that test images stay unseen.

    python tools/cross_validate.py --trainer CDC --setting "" --setting "TRAINER.CDC.CONSISTENCY_WEIGHT 30.0"

The embedded data set has about 100 validation images of base classes: too few to tell settings apart. Here train and val images of
the base classes are split into folds; prompts are trained on up to 16 images a class outside a fold and judged on the fold, and on
all train and val images of the new classes, which nothing is trained on. Training is the trainer's own; only its loader is replaced by
one that draws views from a stock of some per image, made beforehand. Where the method leaves the image encoder alone, the stock
holds their features, and a training takes seconds. Prints accuracy and expected calibration error (percent) over folds and seeds.
"""
import argparse
import contextlib
import io
import logging
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402
from dassl.data.datasets import Datum  # noqa: E402
from dassl.engine import build_trainer  # noqa: E402
from dassl.utils import read_image, set_random_seed  # noqa: E402
from tabulate import tabulate  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from protocols import training as train  # noqa: E402
from protocols.plan import Job, recipe_path  # noqa: E402
from results.render import summary  # noqa: E402
from results.table import harmonic_mean  # noqa: E402
from trainers.base import PromptTrainer  # noqa: E402
from trainers.evaluation.prediction import calibration, percent_right  # noqa: E402

SHOTS = 16
IMAGES_AT_ONCE = 64


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--trainer", required=True)
    add("--recipe", default="tiny")
    add("--dataset", default="openmoji")
    add("--root", default="data")
    add("--setting", action="append", help='KEY VALUE pairs on top of the recipe; may be given many times; "" is the recipe itself')
    add("--common", default="", help="KEY VALUE pairs of all settings, those that change the views among them")
    add("--seeds", type=int, nargs="+", default=[1, 2])
    add("--folds", type=int, default=4)
    add("--views", type=int, default=12, help="random views of each training image and template that are made")
    args = parser.parse_args(argv)
    args.setting = args.setting or [""]
    return args


class StockLoader:
    """Takes the place of a trainer's training loader: batches of views drawn from a stock.

    Args:
        stock: (R, V, N, …), R random images or features for each of V views and N images.
        labels: (N,); chosen: (n,) indices of the images to train on; batch_size: B, an incomplete last batch is dropped, as Dassl does.
    """
    num_workers = 0

    def __init__(self, stock: Tensor, labels: Tensor, chosen: Tensor, batch_size: int) -> None:
        self.stock, self.labels, self.chosen, self.batch_size = stock, labels, chosen, batch_size

    def __len__(self) -> int:
        return len(self.chosen) // self.batch_size

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        order = self.chosen[torch.randperm(len(self.chosen))]
        for images in order[:len(self) * self.batch_size].split(self.batch_size):
            views = self.stock[torch.randint(len(self.stock), images.shape), :, images].transpose(0, 1)  # (V, B, …)
            yield {"img": views, "label": self.labels[images]}

    batches_done = 0

    def close(self) -> None:
        """It has no workers to end."""


def new_trainer(args: argparse.Namespace, classes: str, setting: str, seed: int, folder: str) -> PromptTrainer:
    """The trainer on all images of the base or the new classes; what it writes goes to the folder."""
    job = Job(folder, args.trainer, recipe_path(args.trainer, args.recipe), args.dataset, classes, None, seed)
    options = [*args.common.split(), *setting.split(), "TEST.NO_TEST", "True", "TRAIN.CHECKPOINT_FREQ", "0"]
    cfg = train.build_config(train.parse_arguments(job.arguments(args.root, options)))
    set_random_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):  # Dassl prints what it builds
        trainer = build_trainer(cfg)
    assert isinstance(trainer, PromptTrainer)
    trainer.encode_images = features_or_images(trainer.encode_images)  # type: ignore[method-assign]
    return trainer


def features_or_images(encode_images: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The encoding of images, (V, B, 3, H, W), which leaves as they are what are features already, (V, B, E)."""
    return lambda images, prompts=None: images if images.dim() == 3 else encode_images(images, prompts)


@torch.no_grad()
def prompts_images(trainer: PromptTrainer) -> bool:
    """Whether the method prompts the image encoder, so that an image's features change while it is trained."""
    _, prompts = trainer.encode_prompts() or (None, None)
    return prompts is not None and prompts.visual is not None


@torch.no_grad()
def show(trainer: PromptTrainer, items: Sequence[Datum], transform: Callable[[Any], Tensor], as_features: bool) -> Tensor:
    """The images of N items under a transform, (N, 3, H, W), or their features, (N, E)."""
    images = torch.stack([transform(read_image(item.impath)) for item in items]).to(trainer.device)
    if not as_features:
        return images
    return torch.cat([trainer.encode_images(part[None])[0] for part in images.split(IMAGES_AT_ONCE)])


def transform_of(loader: DataLoader[Any]) -> Any:
    """What the images of a loader go through: in training several transforms, one a view."""
    dataset: Any = loader.dataset
    return dataset.transform


def train_on(trainer: PromptTrainer, items: Sequence[Datum], stock: Tensor, labels: Tensor, chosen: Tensor) -> None:
    """Trains the prompts as the trainer does, on views of the chosen of N images out of a stock (R, V, N, …)."""
    trainer.dm.dataset.train_x[:] = [items[i] for i in chosen]  # what some look at before the first step
    loader: Any = StockLoader(stock, labels, chosen, trainer.cfg.DATALOADER.TRAIN_X.BATCH_SIZE)
    trainer.train_loader_x = loader
    trainer.parse_batch_train = lambda batch: (batch["img"], batch["label"])  # type: ignore[method-assign]
    trainer.complete_prompts = lambda: False  # type: ignore[method-assign]  # its validation images are among the folds
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        trainer.train()
    trainer.set_model_mode("eval")


@torch.no_grad()
def answers(trainer: PromptTrainer, images: Tensor) -> Tensor:
    """Probabilities (N, K) of images (N, 3, H, W) or features (N, E)."""
    encoded = trainer.encode_prompts()
    return torch.cat([trainer.answer(part[None], encoded).probability for part in images.split(IMAGES_AT_ONCE)])


def judge(probability: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy and expected calibration error of (N, K) probabilities, in percent."""
    return percent_right(probability.argmax(dim=1), labels), calibration(probability, labels)["ece"]


def folds_of(labels: Tensor, folds: int, seed: int) -> tuple[Tensor, list[Tensor]]:
    """Fold of each image, every class spread evenly, and up to ``SHOTS`` images a class to train on for each fold."""
    rng = random.Random(seed)
    fold = torch.empty(len(labels), dtype=torch.long)
    by_class: dict[float, list[int]] = {}
    for index in rng.sample(range(len(labels)), len(labels)):
        members = by_class.setdefault(labels[index].item(), [])
        fold[index] = len(members) % folds
        members.append(index)
    chosen = [torch.tensor([i for members in by_class.values() for i in [m for m in members if fold[m] != held_out][:SHOTS]])
              for held_out in range(folds)]
    return fold, chosen


def main(argv: Sequence[str] | None = None) -> list[list[str]]:
    args = parse(argv)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        base, new = (new_trainer(args, classes, "", args.seeds[0], folder) for classes in ("base", "new"))
        as_features = not prompts_images(base)
        items = {trainer: trainer.dm.dataset.train_x + (trainer.dm.dataset.val or []) for trainer in (base, new)}
        labels, new_labels = (torch.tensor([item.label for item in items[trainer]], device=trainer.device) for trainer in (base, new))
        centre, new_centre = (show(trainer, items[trainer], transform_of(trainer.test_loader), as_features) for trainer in (base, new))
        views = transform_of(base.train_loader_x).transforms
        stock = torch.stack([torch.stack([show(base, items[base], view, as_features) for view in views]) for _ in range(args.views)])
    rows = []
    for setting in args.setting:
        found: dict[str, list[Any]] = {"base": [], "new": []}  # of each seed: accuracy, calibration error
        for seed in args.seeds:
            fold, chosen = folds_of(labels, args.folds, seed)
            held_out_answers, new_by_fold = torch.empty(len(labels), base.num_classes, device=base.device), []
            for held_out in range(args.folds):
                with tempfile.TemporaryDirectory() as folder:
                    trained, tested = (new_trainer(args, classes, setting, seed, folder) for classes in ("base", "new"))
                    train_on(trained, items[base], stock, labels, chosen[held_out])
                inside = fold == held_out
                held_out_answers[inside] = answers(trained, centre[inside])
                tested.prompt_learner.load_state_dict(trained.prompt_learner.state_dict())
                tested.set_model_mode("eval")
                new_by_fold.append(judge(answers(tested, new_centre), new_labels))
            found["base"].append(judge(held_out_answers, labels))
            found["new"].append([statistics.mean(values) for values in zip(*new_by_fold)])
        (of_base, base_error), (of_new, new_error) = (zip(*values) for values in found.values())
        both = [harmonic_mean(pair) for pair in zip(of_base, of_new)]
        rows.append([setting or "(recipe)", *map(summary, (of_base, of_new, both, base_error, new_error))])
        sys.stderr.write(f"{rows[-1]}\n")
    print(tabulate(rows, headers=["setting", f"base ({len(labels)} images)", f"new ({len(new_labels)})", "H", "ECE base", "ECE new"]))
    return rows


if __name__ == "__main__":
    main()

"""Compares settings of a method that leaves the image encoder alone, by cross-validation on features that are computed once.

    python tools/cross_validate.py --trainer CDC --setting "" --setting "TRAINER.CDC.CONSISTENCY_WEIGHT 30.0"

The embedded data set has 92 validation images of base classes at 16 shots: too few to tell settings apart. Here train and val images of
the base classes are split into folds; prompts are trained on up to 16 images a class outside a fold and judged on the fold, and on
all train and val images of the new classes, which nothing is trained on. Test images are never opened. Views are drawn from a stock
of some per image, encoded beforehand, so that a training takes seconds. Prints accuracy (percent) over folds and seeds.
"""
import argparse
import contextlib
import io
import logging
import random
import statistics
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402
from dassl.engine import build_trainer  # noqa: E402
from dassl.utils import read_image, set_random_seed  # noqa: E402
from tabulate import tabulate  # noqa: E402
from tqdm import tqdm  # noqa: E402

import train  # noqa: E402
from protocols import Job, recipe_path  # noqa: E402
from results.table import harmonic_mean, summary  # noqa: E402

SHOTS = 16
IMAGES_AT_ONCE = 64


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--trainer", required=True)
    add("--recipe", default="tiny")
    add("--dataset", default="openmoji")
    add("--root", default="data")
    add("--setting", action="append", required=True, help="KEY VALUE pairs on top of the recipe")
    add("--common", default="", help="KEY VALUE pairs of all settings, those that change the views among them")
    add("--seeds", type=int, nargs="+", default=[1, 2])
    add("--folds", type=int, default=4)
    add("--views", type=int, default=12, help="random views of each training image and template that are encoded")
    return parser.parse_args(argv)


def new_trainer(args, classes, setting, seed):
    """The trainer on all images of the base or the new classes."""
    job = Job(str(REPOSITORY / "output" / "cross_validation"), args.trainer, recipe_path(args.trainer, args.recipe), args.dataset, classes,
              None, seed)
    cfg = train.build_config(train.parse_arguments(job.arguments(args.root, [*args.common.split(), *setting.split()])))
    set_random_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):  # Dassl prints what it builds
        trainer = build_trainer(cfg)
    trainer.progress = tqdm(disable=True)
    return trainer


def take_features(trainer):
    """From now on a batch is features of its images, (V, B, E), which the image encoder would give, and labels."""
    trainer.parse_batch_train = lambda batch: batch
    trainer.encode_images = lambda features, prompts=None: features


@torch.no_grad()
def encode(trainer, items, transform):
    """Features (N, E) of the images of N items."""
    images = [transform(read_image(item.impath)) for item in items]
    parts = [torch.stack(images[start:start + IMAGES_AT_ONCE]) for start in range(0, len(images), IMAGES_AT_ONCE)]
    return torch.cat([trainer.encode_images(part.to(trainer.device)[None])[0] for part in parts])


def train_on(trainer, stock, labels, chosen):
    """Trains the prompts on views out of the stock (R, V, N, E) for the chosen of N images."""
    if hasattr(trainer, "initial_offset"):
        with torch.no_grad():
            trainer.prompt_learner.offset.copy_(trainer.initial_offset())
    take_features(trainer)
    batch = trainer.cfg.DATALOADER.TRAIN_X.BATCH_SIZE
    trainer.num_batches = len(chosen) // batch  # an incomplete last one is dropped, as Dassl does
    trainer.set_model_mode("train")
    for trainer.epoch in range(trainer.max_epoch):
        order = chosen[torch.randperm(len(chosen))]
        for trainer.batch_idx in range(trainer.num_batches):
            images = order[trainer.batch_idx * batch:(trainer.batch_idx + 1) * batch]
            views = stock[torch.randint(len(stock), images.shape), :, images].transpose(0, 1)  # (V, B, E)
            trainer.forward_backward((views, labels[images]))
    trainer.set_model_mode("eval")


@torch.no_grad()
def accuracy(trainer, features, labels):
    """Percent right of images (N, E)."""
    right = trainer.model_inference(features[None]).argmax(dim=1) == labels
    return 100 * right.float().mean().item()


def folds_of(labels, folds, seed):
    """Fold of each image, every class spread evenly, and up to ``SHOTS`` images a class to train on for each fold."""
    rng = random.Random(seed)
    fold, by_class = torch.empty(len(labels), dtype=torch.long), {}
    for index in rng.sample(range(len(labels)), len(labels)):
        members = by_class.setdefault(labels[index].item(), [])
        fold[index] = len(members) % folds
        members.append(index)
    chosen = [torch.tensor([i for members in by_class.values() for i in [m for m in members if fold[m] != held_out][:SHOTS]])
              for held_out in range(folds)]
    return fold, chosen


def main(argv=None):
    args = parse(argv)
    logging.disable(logging.INFO)
    base, new = new_trainer(args, "base", "", args.seeds[0]), new_trainer(args, "new", "", args.seeds[0])
    items = {trainer: trainer.dm.dataset.train_x + trainer.dm.dataset.val for trainer in (base, new)}
    labels, new_labels = (torch.tensor([item.label for item in items[trainer]], device=trainer.device) for trainer in (base, new))
    centre, new_centre = (encode(trainer, items[trainer], trainer.test_loader.dataset.transform) for trainer in (base, new))
    views = base.train_loader_x.dataset.transform
    views = views if isinstance(views, list) else [views]
    stock = torch.stack([torch.stack([encode(base, items[base], view) for view in views]) for _ in range(args.views)])  # (R, V, N, E)
    rows = []
    for setting in args.setting:
        found = {"base": [], "new": []}
        for seed in args.seeds:
            fold, chosen = folds_of(labels, args.folds, seed)
            new_trained, right, of_new = new_trainer(args, "new", setting, seed), 0.0, []
            take_features(new_trained)
            for held_out in range(args.folds):
                trained = new_trainer(args, "base", setting, seed)
                train_on(trained, stock, labels, chosen[held_out])
                inside = fold == held_out
                right += accuracy(trained, centre[inside], labels[inside]) * inside.sum().item()
                new_trained.prompt_learner.load_state_dict(trained.prompt_learner.state_dict())
                new_trained.set_model_mode("eval")
                of_new.append(accuracy(new_trained, new_centre, new_labels))
            found["base"].append(right / len(labels))
            found["new"].append(statistics.mean(of_new))
        both = [harmonic_mean(pair) for pair in zip(found["base"], found["new"])]
        rows.append([setting or "(recipe)", summary(found["base"]), summary(found["new"]), summary(both)])
    print(tabulate(rows, headers=["setting", f"base ({len(labels)} images)", f"new ({len(new_labels)})", "H"]))
    return rows


if __name__ == "__main__":
    main()

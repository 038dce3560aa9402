"""The protocols of the field as lists of runs, in CoOp's manner of naming folders.

A run lies in ``<output>/<part>/<data set>/shots_<N>/<trainer>/<config>/seed<S>``; the parts are

- base2new: ``train_base`` trains on the base classes and tests on them, ``test_new`` tests the same prompts on the new ones,
- fewshot: ``train_all`` trains on N shots of all classes and tests on them,
- xd and dg: ``train_source`` trains on all classes of the source, ``xd_from_<source>`` and ``dg_from_<source>`` test the same
  prompts on each target,
- zeroshot: ``test_all`` tests a trainer that learns nothing on all classes.
"""
import os
from dataclasses import dataclass
from typing import Optional

from trainers.errors import UserError, nearest

CONFIGS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs")
PROTOCOLS = ("base2new", "fewshot", "xd", "dg", "zeroshot")
SHOTS = {"fewshot": (1, 2, 4, 8, 16)}  # the others: 16

# Zhou et al., 2022, "Conditional Prompt Learning", tables 2 and 3; for the embedded data what stands in for them.
TARGETS = {
    "xd": {"imagenet": ("caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft", "sun397", "dtd",
                        "eurosat", "ucf101"),
           "openmoji": ("openmoji_people",)},
    "dg": {"imagenet": ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"),
           "openmoji": ("openmoji_sketch", "openmoji_corrupted", "openmoji_recoloured")},
}


@dataclass(frozen=True)
class Job:
    """One run of ``train.py``.

    Attributes:
        folder: where it goes.
        trainer: its registered name.
        recipe: path of the trainer's config file.
        dataset: name of a file of configs/datasets.
        classes: ``all``, ``base`` or ``new``.
        shots: training images a class; None: the data set's own training images, which are not used.
        seed: of the run.
        model: folder of the run whose prompts are tested; None: this run trains.
    """
    folder: str
    trainer: str
    recipe: str
    dataset: str
    classes: str
    shots: Optional[int]
    seed: int
    model: Optional[str] = None

    def arguments(self, root, options=()):
        """Arguments of ``train.py``."""
        found = ["--root", root, "--seed", str(self.seed), "--trainer", self.trainer,
                 "--dataset-config-file", os.path.join(CONFIGS, "datasets", f"{self.dataset}.yaml"), "--config-file", self.recipe,
                 "--output-dir", self.folder]
        if self.model:
            found += ["--eval-only", "--model-dir", self.model]
        if self.shots:
            found += ["DATASET.NUM_SHOTS", str(self.shots)]
        return [*found, "DATASET.SUBSAMPLE_CLASSES", self.classes, *options]


def recipe_path(trainer, config):
    """The trainer's config file of that name.

    Raises:
        UserError: there is none; the message names the nearest one.
    """
    return existing(os.path.join(CONFIGS, "trainers", trainer, f"{config}.yaml"), f"{trainer} has no recipe {config!r}")


def default_recipe(trainer, protocol, dataset):
    """Name of the config that a protocol takes: ``tiny`` for the embedded data, else the trainer's for that protocol, else ``vit_b16``."""
    if dataset.startswith("openmoji"):
        return "tiny"
    own = f"vit_b16_{'xd' if protocol == 'dg' else protocol}"
    return own if os.path.isfile(os.path.join(CONFIGS, "trainers", trainer, f"{own}.yaml")) else "vit_b16"


def plan(protocol, trainer, dataset, shots, seeds, output, config=None):
    """The runs of a protocol in an order in which each comes behind the one whose prompts it tests.

    Args:
        protocol: one of ``PROTOCOLS``; trainer: registered name; dataset: name of a file of configs/datasets, the source of xd and dg.
        shots, seeds: lists of numbers; output: folder; config: name of a recipe, the protocol's own without it.

    Raises:
        UserError: no such data set or recipe, no targets are known for that source, several numbers of shots make no sense.
    """
    config = config or default_recipe(trainer, protocol, dataset)
    recipe = recipe_path(trainer, config)
    existing(os.path.join(CONFIGS, "datasets", f"{dataset}.yaml"), f"no data set {dataset!r}")
    if protocol in TARGETS and dataset not in TARGETS[protocol]:
        raise UserError(f"{protocol} knows no targets for the source {dataset!r}, only for {', '.join(TARGETS[protocol])}")
    if protocol != "fewshot" and len(shots) > 1:
        raise UserError(f"--shots {' '.join(map(str, shots))}: {protocol} takes one number; the curve over shots is --protocol fewshot")
    jobs = []
    for number in shots:
        for seed in seeds:
            def job(part, data, classes, model=None, drawn=number):
                folder = os.path.join(output, part, data, f"shots_{number}", trainer, config, f"seed{seed}")
                jobs.append(Job(folder, trainer, recipe, data, classes, drawn, seed, model))
                return folder
            if protocol == "base2new":
                job("test_new", dataset, "new", job("train_base", dataset, "base"))
            elif protocol == "fewshot":
                job("train_all", dataset, "all")
            elif protocol == "zeroshot":
                job("test_all", dataset, "all", drawn=None)
            else:
                trained = job("train_source", dataset, "all")
                for target in TARGETS[protocol][dataset]:
                    job(f"{protocol}_from_{dataset}", target, "all", trained, drawn=None)
    return jobs


def existing(path, complaint):
    """The path.

    Raises:
        UserError: it is not there; the message names the nearest one that is.
    """
    if not os.path.isfile(path):
        folder, name = os.path.split(path)
        beside = sorted(os.path.splitext(found)[0] for found in os.listdir(folder)) if os.path.isdir(folder) else []
        raise UserError(f"{complaint}{nearest(os.path.splitext(name)[0], beside)}; there is {', '.join(beside) or 'none'} in {folder}")
    return path

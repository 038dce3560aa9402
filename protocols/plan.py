"""The protocols of the field as lists of runs, in CoOp's manner of naming folders.

A run lies in ``<output>/<part>/<data set>/shots_<N>/<trainer>/<config>/seed<S>``; the parts are

- base2new: ``train_base`` trains on the base classes and tests on them, ``test_new`` tests the same prompts on the new ones,
- open: ``test_open`` tests the prompts of ``train_base`` on the images of all classes, with all classes to choose from,
- ablation: base2new for each row of configs/ablations/<trainer>.yaml, whose name stands in place of the config's,
- factors: ``train_biased`` trains on the base classes of a set in which one factor goes with the class, and tests where it always does;
  ``test_independent`` and ``test_reversed`` test the same prompts where it doesn't, see datasets/drawn/factors.py; of the recipe, or of rows
  of the ablation that are named,
- fewshot: ``train_all`` trains on N shots of all classes and tests on them,
- xd and dg: ``train_source`` trains on all classes of the source, ``xd_from_<source>`` and ``dg_from_<source>`` test the same
  prompts on each target,
- zeroshot: ``test_all`` tests a trainer that learns nothing on all classes.
"""

import json
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from yacs.config import CfgNode

from protocols.recipes import EXPERIMENTS, Recipe, Rule
from trainers.common.errors import UserError, nearest
from trainers.common.fingerprints import data_name
from trainers.common.readers import read_yaml
from trainers.common.record_file import protocol_of

CONFIGS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "configs")
PROTOCOLS = ("base2new", "open", "ablation", "factors", "fewshot", "xd", "dg", "zeroshot")
SHOTS: dict[str, tuple[int, ...]] = {"fewshot": (1, 2, 4, 8, 16)}  # the others: 16

PACS = ("pacs_photo", "pacs_art_painting", "pacs_cartoon", "pacs_sketch")
# Zhou et al., 2022, "Conditional Prompt Learning", tables 2 and 3; for the embedded data what stands in for them; PACS' domains from one of them.
TARGETS = {
    "xd": {
        "imagenet": (
            "caltech101",
            "oxford_pets",
            "stanford_cars",
            "oxford_flowers",
            "food101",
            "fgvc_aircraft",
            "sun397",
            "dtd",
            "eurosat",
            "ucf101",
        ),
        "openmoji": ("openmoji_people",),
    },
    "dg": {
        "imagenet": ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"),
        "openmoji": ("openmoji_sketch", "openmoji_corrupted", "openmoji_recoloured"),
        **{
            source: tuple(f"{domain}_all" for domain in PACS if domain != source) for source in PACS
        },
    },
}


@dataclass(frozen=True)
class Run:
    """One training or test, as a protocol plans it.

    Attributes:
        output: folder of the protocol's runs.
        part: of the protocol, such as ``train_base``.
        dataset: its name in folders and tables: the config file's, or that of one's own folder of images.
        dataset_file: path of the data set's config file.
        classes: ``all``, ``base`` or ``new``.
        trainer: its registered name.
        recipe: path of the trainer's config file.
        row: name of the ablation's row; None: the recipe as it is.
        shots: training images a class, of the training where this is a test.
        seed: of the run.
        model: folder of the run whose prompts are tested; None: this run trains.
        settings: KEY, VALUE, KEY … of an ablation's row or a protocol's test, over the recipe and all other options.
    """

    output: str
    part: str
    dataset: str
    dataset_file: str
    classes: str
    trainer: str
    recipe: str
    row: str | None
    shots: int
    seed: int
    model: str | None = None
    settings: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Where it goes, in CoOp's manner."""
        name = self.row or stem(self.recipe)
        place = (self.dataset, f"shots_{self.shots}", self.trainer, name, f"seed{self.seed}")
        return os.path.join(self.output, self.part, *place)

    @property
    def protocol(self) -> str:
        """That of its part: a training that protocols share is the same run in each."""
        return protocol_of(self.part, self.row is not None)

    @property
    def has_sample(self) -> bool:
        """Whether its data set has the few-shot sample; that of another set is of no use to a test."""
        return "_from_" not in self.part and self.part != "test_all"

    def arguments(self, root: str, options: Sequence[str] = ()) -> list[str]:
        """Arguments of ``train.py``; root: folder of the data sets."""
        said = {
            **{
                name: getattr(self, name)
                for name in ("protocol", "part", "dataset", "row", "shots")
            },
            "recipe": stem(self.recipe),
        }
        named = {
            "--root": root,
            "--seed": str(self.seed),
            "--trainer": self.trainer,
            "--dataset-config-file": self.dataset_file,
            "--config-file": self.recipe,
            "--output-dir": self.folder,
            "--protocol": EXPERIMENTS[self.protocol],
            "--run": json.dumps(said, ensure_ascii=False),
        }
        test = ["--eval-only", "--model-dir", self.model] if self.model else []
        sample = ["DATASET.NUM_SHOTS", str(self.shots)] if self.has_sample else []
        classes = ["DATASET.SUBSAMPLE_CLASSES", self.classes]
        flags = [word for pair in named.items() for word in pair]
        return [*flags, *test, *sample, *classes, *options, *self.settings]


@dataclass(frozen=True)
class AblationRow:
    """A variant of a trainer.

    Attributes:
        name: of letters, digits and underscores; also that of its runs' folders.
        description: what it is, in a few words.
        recipe: name of the recipe it builds on; ``{}`` in it stands for the one that the other rows build on.
        settings: KEY, VALUE, KEY … on top of it.
    """

    name: str
    description: str
    recipe: str = "{}"
    settings: tuple[str, ...] = ()


def ablation_rows(trainer: str, names: Sequence[str] | None = None) -> list[AblationRow]:
    """The rows of configs/ablations/<trainer>.yaml in their order; with names only those.

    Raises:
        UserError: there is no such file, it isn't a list of rows, or it has no row of one of the names.
    """
    path = existing(
        os.path.join(CONFIGS, "ablations", f"{trainer}.yaml"), f"{trainer} has no ablation"
    )
    try:
        found = read_yaml(path)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    rows = {}
    for entry in found if isinstance(found, list) else [found]:
        try:
            pairs = tuple(str(word) for pair in entry.get("settings", {}).items() for word in pair)
            row = AblationRow(**{**entry, "settings": pairs})
            sound = re.fullmatch(r"\w+", row.name) and row.name not in rows
        except (AttributeError, TypeError) as error:
            raise UserError(
                f"{path}: it must be a list of rows with a name, a description, and as needed a recipe and settings "
                f"(KEY: VALUE), {entry!r} is none"
            ) from error
        if not sound:
            raise UserError(
                f"{path}: the row name {row.name!r} must be of letters, digits and underscores, and used once"
            )
        rows[row.name] = row
    for name in names or ():
        if name not in rows:
            raise UserError(
                f"{trainer}'s ablation has no row {name!r}{nearest(name, rows)}; it has {', '.join(rows)} ({path})"
            )
    return [row for row in rows.values() if names is None or row.name in names]


def recipe_path(trainer: str, config: str) -> str:
    """The trainer's config file of that name.

    Raises:
        UserError: there is none; the message names the nearest one.
    """
    return existing(
        os.path.join(CONFIGS, "trainers", trainer, f"{config}.yaml"),
        f"{trainer} has no recipe {config!r}",
    )


def stem(path: str) -> str:
    """Name of a file without its folder and ending."""
    return os.path.splitext(os.path.basename(path))[0]


def source_of(protocol: str, dataset: str) -> str:
    """The data set that was trained on where this one is tested: for xd and dg the source, else itself."""
    found = (
        source
        for group in TARGETS.values()
        for source, targets in group.items()
        if dataset in targets
    )
    return next(found, dataset) if EXPERIMENTS.get(protocol) == "xd" else dataset


def read_rules(recipe: str) -> Recipe:
    """The rules of a recipe's file; they may name any data set of configs/datasets."""
    names = os.listdir(os.path.join(CONFIGS, "datasets"))
    return Recipe.read(recipe, sorted(os.path.splitext(name)[0] for name in names))


def merge_rules(cfg: CfgNode, recipe: str, dataset_file: str, protocol: str | None) -> list[Rule]:
    """Merges those of a recipe's rules that hold for a run into its config; returns them.

    Args:
        dataset_file: config file of the run's data set.
        protocol: one of ``PROTOCOLS``; None: base2new on base or new classes, else few-shot.

    Raises:
        UserError: see ``Recipe.read`` and ``Recipe.merge``.
    """
    experiment = EXPERIMENTS[
        protocol or ("fewshot" if cfg.DATASET.SUBSAMPLE_CLASSES == "all" else "base2new")
    ]
    dataset = source_of(experiment, os.path.splitext(os.path.basename(dataset_file))[0])
    return read_rules(recipe).merge(
        cfg, protocol=experiment, dataset=dataset, shots=cfg.DATASET.NUM_SHOTS
    )


def default_recipe(trainer: str, protocol: str, dataset: str) -> str:
    """Name of the config that a protocol takes: ``tiny`` for the embedded data and one's own, else that for the protocol, else ``vit_b16``."""
    if dataset.startswith(("openmoji", "factors_", "image_folder")):
        return "tiny"
    own = f"vit_b16_{'xd' if protocol == 'dg' else protocol}"
    return (
        own
        if os.path.isfile(os.path.join(CONFIGS, "trainers", trainer, f"{own}.yaml"))
        else "vit_b16"
    )


def plan(
    protocol: str,
    trainer: str,
    dataset: str,
    shots: Sequence[int] | None,
    seeds: Iterable[int],
    output: str,
    config: str | None = None,
    rows: Sequence[str] | None = None,
    root: str = "data",
) -> list[Run]:
    """The runs of a protocol in an order in which each comes after the one whose prompts it tests.

    Args:
        protocol: one of ``PROTOCOLS``; trainer: registered name; dataset: name of a file of configs/datasets, the source of xd and dg.
        shots, seeds: lists of numbers; without shots the recipe's own or the protocol's; output: folder.
        config: name of a recipe, the protocol's own without it.
        rows: names of the ablation's rows, for ablation (without it all of them) and factors (without it the recipe).
        root: folder of the data sets; one's own images are called by it.

    Raises:
        UserError: no such data set, recipe or row, no targets are known for that source, it has no known factors, or several numbers of
            shots make no sense.
    """
    config = config or default_recipe(trainer, protocol, dataset)
    recipe = recipe_path(trainer, config)
    if os.path.isdir(dataset) and not os.path.isfile(
        os.path.join(CONFIGS, "datasets", f"{dataset}.yaml")
    ):
        raise UserError(
            f"--dataset {dataset} is a folder; for a folder of your own images give --dataset image_folder --root {shlex.quote(dataset)}"
        )
    existing(os.path.join(CONFIGS, "datasets", f"{dataset}.yaml"), f"no data set {dataset!r}")
    own_shots = read_rules(recipe).default_shots(EXPERIMENTS[protocol])
    shots = shots or ([own_shots] if own_shots else SHOTS.get(protocol, (16,)))
    if protocol in TARGETS and dataset not in TARGETS[protocol]:
        raise UserError(
            f"{protocol} knows no targets for the source {dataset!r}, only for {', '.join(TARGETS[protocol])}"
        )
    if protocol == "factors" and not dataset.startswith("factors_"):
        known = sorted(
            name.removesuffix(".yaml")
            for name in os.listdir(os.path.join(CONFIGS, "datasets"))
            if name.startswith("factors_")
        )
        raise UserError(
            f"factors takes a data set in which they are known, not {dataset!r}: --dataset {' '.join(known)}"
        )
    if protocol != "fewshot" and len(shots) > 1:
        raise UserError(
            f"--shots {' '.join(map(str, shots))}: {protocol} takes one number; the curve over shots is --protocol fewshot"
        )
    variants: list[tuple[str | None, str, tuple[str, ...]]] = [(None, recipe, ())]
    if protocol == "ablation" or rows:
        variants = [
            (row.name, recipe_path(trainer, row.recipe.replace("{}", config)), row.settings)
            for row in ablation_rows(trainer, rows)
        ]
    runs = []
    for number in shots:
        for seed, (row_name, recipe, settings) in product(seeds, variants):

            def add(
                part: str,
                data: str,
                classes: str,
                model: str | None = None,
                more: tuple[str, ...] = (),
            ) -> str:
                run = Run(
                    output,
                    part,
                    data_name("ImageFolder", root) if data == "image_folder" else data,
                    os.path.join(CONFIGS, "datasets", f"{data}.yaml"),
                    classes,
                    trainer,
                    recipe,
                    row_name,
                    number,
                    seed,
                    model,
                    (*settings, *more),
                )
                runs.append(run)
                return run.folder

            if protocol in ("base2new", "ablation"):
                add("test_new", dataset, "new", add("train_base", dataset, "base"))
            elif protocol == "open":
                add(
                    "test_open",
                    dataset,
                    "all",
                    add("train_base", dataset, "base"),
                    more=("TEST.OPEN", "True"),
                )
            elif protocol == "factors":
                trained = add(
                    "train_biased", dataset, "base", more=("DATASET.FACTORS.TEST", "aligned")
                )
                for version in ("independent", "reversed"):
                    add(
                        f"test_{version}",
                        dataset,
                        "base",
                        trained,
                        more=("DATASET.FACTORS.TEST", version),
                    )
            elif protocol == "fewshot":
                add("train_all", dataset, "all")
            elif protocol == "zeroshot":
                add("test_all", dataset, "all")
            else:
                trained = add("train_source", dataset, "all")
                for target in TARGETS[protocol][dataset]:
                    add(f"{protocol}_from_{dataset}", target, "all", trained)
    return runs


def existing(path: str, complaint: str) -> str:
    """The path.

    Raises:
        UserError: it is not there; the message names the nearest one that is.
    """
    if not os.path.isfile(path):
        folder, name = os.path.split(path)
        beside = (
            sorted(os.path.splitext(found)[0] for found in os.listdir(folder))
            if os.path.isdir(folder)
            else []
        )
        raise UserError(
            f"{complaint}{nearest(os.path.splitext(name)[0], beside)}; there is {', '.join(beside) or 'none'} in {folder}"
        )
    return path

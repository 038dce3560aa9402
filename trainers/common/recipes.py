"""Recipes: a trainer's settings for a CLIP, and rules that change them for one protocol, data set or
number of shots, as the method's authors did.

A config file of a trainer may end with

    RULES:
      - {protocol: fewshot, TRAINER.COOP.N_CTX: 16}
      - {protocol: fewshot, shots: [2, 3, 4], OPTIM.MAX_EPOCH: 100}
      - {dataset: imagenet, OPTIM.MAX_EPOCH: 50}
      - {protocol: xd, target: imagenetv2, TRAINER.MMRL.SCALE: 1.0}

Lower-case keys are conditions, which must all hold; the others are settings. Rules are applied in
their order, so a later one wins; they come over the rest of the file and under the options of the
command line. ``run.py --plan`` shows the result.
"""

import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from .config_files import CONFIGS, leaves, merge, read_config
from .console import counted
from .errors import UserError, nearest

log = logging.getLogger(__name__)
KEY = "RULES"  # in the file
IMAGE_FOLDER = "image_folder"  # the data set that one's own images are
SHOTS = -1  # training images a class of one's own images: all
EMBEDDED = "tiny"  # the CLIP that comes with the package
EXPERIMENTS = ("base2new", "fewshot", "xd")  # whose rules a recipe may have
COUNTS = range(1, 10**4)  # of training images a class


def config_names(*folder: str) -> list[str]:
    """Return the names of the files in a folder of configs, without their ending; none without the
    folder."""
    return sorted(path.stem for path in Path(CONFIGS, *folder).glob("*.yaml"))


@dataclass(frozen=True)
class SettingsRule:
    """Settings and when they hold.

    Attributes:
        conditions: ``protocol``, ``dataset``, ``target``, ``shots`` → the values for which it holds.
            ``dataset`` is trained on; ``target`` is tested on, where it is another.
        settings: KEY → value.
        default_shots: training images a class of a protocol where none are asked for.
    """

    conditions: dict[str, list[Any]]
    settings: dict[str, object]
    default_shots: int | None

    def holds(self, run: Mapping[str, object]) -> bool:
        """Whether all its conditions hold for a run, condition → its value there."""
        return all(run.get(name) in values for name, values in self.conditions.items())

    def __str__(self) -> str:
        conditions = (
            f"{name} {'|'.join(map(str, values))}" for name, values in self.conditions.items()
        )
        parts = [f"{key} {value!r}" for key, value in self.settings.items()]
        if self.default_shots:
            parts.append(f"{counted(self.default_shots, 'shot')} by default")
        return f"{', '.join(conditions) or 'always'}: {', '.join(parts)}"


@dataclass(frozen=True)
class Recipe:
    """A trainer's config file with rules, as the head of this module explains.

    Attributes:
        rules: in their order.
        settings: KEY → value, the rest of the file and of its bases.
    """

    rules: list[SettingsRule]
    settings: dict[str, object]

    @property
    def is_trained(self) -> bool:
        """Whether the trainer learns: the recipe of one that doesn't has no optimiser."""
        return any(key.startswith("OPTIM.") for key in self.settings)

    @classmethod
    def read(cls, path: str) -> "Recipe":
        """Read a recipe's file.

        Raises:
            UserError: as ``read_config``; a rule is malformed, or names a protocol or data set that is
                not known: it would never hold.
        """
        datasets = config_names("datasets")
        known: dict[str, Collection[object]] = {
            "protocol": EXPERIMENTS,
            "dataset": datasets,
            "target": datasets,
            "shots": COUNTS,
            "default_shots": COUNTS,
        }
        try:
            settings = read_config(path, f"config file {path}")
            rules = [read_rule(entry, known) for entry in settings.pop(KEY, [])]
        except (AttributeError, TypeError) as error:
            raise UserError(
                f"config file {path}: {KEY} must be a list of rules, such as - {{protocol: fewshot, OPTIM.MAX_EPOCH: 100}}"
            ) from error
        return cls(rules, dict(leaves(settings)))

    def holding(self, **run: object) -> list[SettingsRule]:
        """The rules all of whose conditions hold for a run, condition → its value there; one that
        is left out does not hold."""
        return [rule for rule in self.rules if rule.holds(run)]

    def default_shots(self, protocol: str) -> list[int]:
        """Training images per class of an experiment where none are given, as a list of one;
        empty: the protocol's own."""
        holding = self.holding(protocol=protocol)
        return [rule.default_shots for rule in holding if rule.default_shots][-1:]


def read_rule(entry: Mapping[str, object], known: Mapping[str, Collection[object]]) -> SettingsRule:
    """Read one rule of a recipe.

    Args:
        known: condition → the values it may have.

    Raises:
        UserError: as ``Recipe.read``; AttributeError: the entry does not map texts.
    """
    conditions: dict[str, list[Any]] = {}
    settings: dict[str, object] = {}
    for key, value in entry.items():
        if key.isupper():
            settings[key] = value
            continue
        if key not in known:
            raise UserError(f"{KEY}: unknown condition {key!r}{nearest(key, known)}")
        conditions[key] = value if isinstance(value, list) else [value]
        for name in conditions[key]:
            if name not in known[key]:
                raise UserError(f"{KEY}: {key} can't be {name!r}{nearest(name, known[key])}")
    [default_shots] = conditions.pop("default_shots", [None])
    return SettingsRule(conditions, settings, default_shots)


def recipe_path(trainer: str, config: str) -> str:
    """The trainer's config file of that name.

    Raises:
        UserError: there is none; the message names the nearest one.
    """
    return config_path("trainers", trainer, config, missing=f"{trainer} has no recipe {config!r}")


def short_name(backbone: str) -> str:
    """A CLIP's name as recipes have it: ``vit_b16`` of ``ViT-B/16``; of a file its own."""
    name = Path(backbone).stem if os.path.isfile(backbone) else backbone.replace("/", "")
    return re.sub(r"\W+", "_", name.lower())


def choose_recipe(trainer: str, backbone: str, protocol: str = "") -> str:
    """Name of the trainer's recipe for a CLIP: that for the protocol (dg: xd's), the one named
    after the CLIP, or its ``_text``; else ``vit_b16``."""
    short = short_name(backbone)
    known = config_names("trainers", trainer)
    for name in (f"{short}_{'xd' if protocol == 'dg' else protocol}", short, f"{short}_text"):
        if name in known:
            return name
    log.warning("%s has no recipe for %s: vit_b16's settings are taken", trainer, backbone)
    return "vit_b16"


def check_known(noun: str, name: str, known: Iterable[str]) -> None:
    """Check that a name is known.

    Raises:
        UserError: the name is none of the known ones; the message names the nearest one.
    """
    if name not in known:
        given = f"unknown {noun} {name!r}{nearest(name, known)}" if name else f"no {noun} is given"
        raise UserError(f"{given}; known: {', '.join(sorted(known))}")


def config_path(*place: str, missing: str) -> str:
    """Path of a config file, of a folder of configs and the file's name.

    Raises:
        UserError: it is not there; the message, ``missing``, names the nearest one that is.
    """
    *folder, name = place
    path = os.path.join(CONFIGS, *place) + ".yaml"
    if not os.path.isfile(path):
        known = config_names(*folder)
        there = f"there is {', '.join(known) or 'none'} in {os.path.dirname(path)}"
        raise UserError(f"{missing}{nearest(name, known)}; {there}")
    return path


def usual_experiment(cfg: CfgNode) -> str:
    """Return the protocol whose rules hold by default: of all classes, or of a half."""
    return "fewshot" if cfg.DATASET.SUBSAMPLE_CLASSES == "all" else "base2new"


def fill_config(
    cfg: CfgNode,
    dataset_file: str,
    recipe_file: str,
    conditions: Callable[[CfgNode], Mapping[str, object]],
    given: Mapping[str, tuple[str, object]],
    options: Mapping[str, object],
    where: str = "options after the flags",
) -> None:
    """Puts into a config, later ones over the ones before: a data set's file, a recipe, its rules, what
    is given by name, and further options.

    Args:
        dataset_file, recipe_file: paths; "" for none.
        conditions: the run's facts for ``SettingsRule.conditions``, as the config so far
            has it.
        given: KEY → its name for messages, and its value.
        options: KEY → value; where: their name in messages.

    Raises:
        UserError: as ``merge`` and ``Recipe.read``.
    """
    recipe = Recipe.read(recipe_file) if recipe_file else Recipe([], {})
    if dataset_file:
        merge(cfg, dataset_file, "data set config file")
    merge(cfg, recipe.settings, f"config file {recipe_file}")
    merge(cfg, options, where)  # rules ask for the shots and the classes; below over the rules
    for rule in recipe.holding(**conditions(cfg)):
        merge(cfg, rule.settings, f"{KEY} of config file {recipe_file}")
    for key, (name, value) in given.items():
        merge(cfg, {key: repr(value)}, name)  # as it is: of a plain text yacs makes a number
    merge(cfg, options, where)

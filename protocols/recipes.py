"""The rules of a recipe: what its settings are for one protocol, data set or number of shots, where
the method's authors varied them.

A config file of a trainer may end with

    RULES:
      - {protocol: fewshot, TRAINER.COOP.N_CTX: 16}
      - {protocol: fewshot, shots: [2, 3, 4], OPTIM.MAX_EPOCH: 100}
      - {dataset: imagenet, OPTIM.MAX_EPOCH: 50}
      - {protocol: xd, target: imagenetv2, TRAINER.MMRL.SCALE: 1.0}

Lower-case keys are conditions, which must all hold; the others are settings. Rules are applied in
their order, so a later one wins; they come over the rest of the file and under what is given on the
command line. ``run.py --plan`` shows what comes of them.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.common.config_files import CONFIGS as CONFIGS
from trainers.common.config_files import read_config
from trainers.common.console import counted
from trainers.common.errors import UserError, nearest

from . import PROTOCOLS

KEY = "RULES"  # in the file
COUNTS = range(1, 10**4)  # of training images a class


def config_names(*folder: str) -> list[str]:
    """Names of the files in a folder of configs, without their ending; none where there is no such
    folder."""
    return sorted(path.stem for path in Path(CONFIGS, *folder).glob("*.yaml"))


@dataclass(frozen=True)
class Rule:
    """Settings and when they hold.

    Attributes:
        conditions: ``protocol``, ``dataset``, ``target``, ``shots`` → the values for which it holds.
            ``dataset`` is what is trained on, ``target`` what such prompts are tested on where it is
            another.
        settings: KEY, value, KEY …
        default_shots: training images a class of a protocol where none are asked for.
    """

    conditions: dict[str, list[Any]]
    settings: list[object]
    default_shots: int | None

    def __str__(self) -> str:
        conditions = (
            f"{name} {'|'.join(map(str, values))}" for name, values in self.conditions.items()
        )
        parts = [f"{key} {value!r}" for key, value in zip(self.settings[::2], self.settings[1::2])]
        if self.default_shots:
            parts.append(f"{counted(self.default_shots, 'shot')} by default")
        return f"{', '.join(conditions) or 'always'}: {', '.join(parts)}"


@dataclass(frozen=True)
class Recipe:
    """A trainer's config file with rules; see the head of this module.

    Attributes:
        rules: in their order.
        settings: the rest of the file, node by node.
    """

    rules: list[Rule]
    settings: dict[str, object]

    @property
    def is_trained(self) -> bool:
        """Whether the trainer learns: the recipe of one that doesn't has no optimiser."""
        return "OPTIM" in self.settings

    @classmethod
    def read(cls, path: str) -> "Recipe":
        """
        Raises:
            UserError: a rule is malformed, or names a protocol or data set that is not known: it
                would never hold.
        """
        datasets = config_names("datasets")
        known: dict[str, Collection[object]] = {
            "protocol": {protocol["recipe"] for protocol in PROTOCOLS.values()},
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
        return cls(rules, settings)

    def holding(self, **run: object) -> list[Rule]:
        """The rules all of whose conditions hold for a run, condition → its value there; one that
        is left out does not hold."""
        return [
            rule
            for rule in self.rules
            if all(run.get(name) in values for name, values in rule.conditions.items())
        ]

    def default_shots(self, protocol: str) -> list[int]:
        """Training images a class of an experiment where none are asked for, as a list of one;
        empty: the protocol's own."""
        holding = self.holding(protocol=protocol)
        return [rule.default_shots for rule in holding if rule.default_shots][-1:]


def settings_of(rules: Iterable[Rule]) -> list[object]:
    """KEY, value, KEY … of rules in their order."""
    return [word for rule in rules for word in rule.settings]


def read_rule(entry: Mapping[str, object], known: Mapping[str, Collection[object]]) -> Rule:
    """
    Args:
        known: condition → the values it may have.

    Raises:
        UserError: see ``Recipe.read``; AttributeError: the entry is no mapping of texts.
    """
    conditions: dict[str, list[Any]] = {}
    settings: list[object] = []
    for key, value in entry.items():
        if key.isupper():
            settings += [key, value]
            continue
        if key not in known:
            raise UserError(f"{KEY}: unknown condition {key!r}{nearest(key, known)}")
        conditions[key] = value if isinstance(value, list) else [value]
        for name in conditions[key]:
            if name not in known[key]:
                raise UserError(f"{KEY}: {key} can't be {name!r}{nearest(name, known[key])}")
    [default_shots] = conditions.pop("default_shots", [None])
    return Rule(conditions, settings, default_shots)

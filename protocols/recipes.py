"""The rules of a recipe: what its settings are for one protocol, data set or number of shots, where the method's authors varied them.

A config file of a trainer may end with

    RULES:
      - {protocol: fewshot, TRAINER.COOP.N_CTX: 16}
      - {protocol: fewshot, shots: [2, 3, 4], OPTIM.MAX_EPOCH: 100}
      - {dataset: imagenet, OPTIM.MAX_EPOCH: 50}

Lower-case keys are conditions, which must all hold; the others are settings. Rules are applied in their order, so a later one wins; they come
over the rest of the file and under what is given on the command line. ``run.py --plan`` shows what comes of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from yacs.config import CfgNode

from trainers.common.config_files import merge
from trainers.common.errors import UserError, nearest
from trainers.common.readers import read_yaml

KEY = "RULES"  # in the file
# A recipe knows three experiments: all that train on base classes, all that train on all classes of the set they test on, and transfer.
EXPERIMENTS = {
    "base2new": "base2new",
    "ablation": "base2new",
    "factors": "base2new",
    "open": "base2new",
    "fewshot": "fewshot",
    "zeroshot": "fewshot",
    "xd": "xd",
    "dg": "xd",
}
KNOWN_PROTOCOLS = tuple(dict.fromkeys(EXPERIMENTS.values()))


@dataclass(frozen=True)
class Rule:
    """Settings and when they hold.

    Attributes:
        conditions: ``protocol``, ``dataset``, ``shots`` → the values for which it holds.
        settings: KEY, value, KEY …
        default_shots: training images a class of a protocol where none are asked for.
    """

    conditions: dict[str, tuple[Any, ...]]
    settings: tuple[Any, ...]
    default_shots: int | None = None

    def holds(self, **run: Any) -> bool:
        """Whether all conditions hold for a run, condition → its value there; one that is left out does not hold."""
        return all(run.get(name) in values for name, values in self.conditions.items())

    def __str__(self) -> str:
        when = (
            ", ".join(
                f"{name} {'|'.join(map(str, values))}" for name, values in self.conditions.items()
            )
            or "always"
        )
        pairs = [
            f"{key} {value!r}"
            for key, value in zip(self.settings[::2], self.settings[1::2], strict=True)
        ]
        return f"{when}: {', '.join([*pairs, *([f'{self.default_shots} shots'] if self.default_shots else [])])}"


@dataclass
class Recipe:
    """A trainer's config file with rules; see the head of this module."""

    path: str
    rules: list[Rule] = field(default_factory=list)

    @classmethod
    def read(cls, path: str, datasets: Sequence[str]) -> "Recipe":
        """
        Args:
            datasets: the names that the condition ``dataset`` may have.

        Raises:
            UserError: a rule is malformed, or names a protocol or data set that is not known: it would never hold.
        """
        try:
            found = read_yaml(path)
        except (OSError, ValueError):
            return cls(path)  # ``merge`` says what is wrong
        rules = found.get(KEY, []) if isinstance(found, dict) else []
        if not isinstance(rules, list):
            raise UserError(
                f"{path}: {KEY} must be a list of rules, such as - {{protocol: fewshot, OPTIM.MAX_EPOCH: 100}}"
            )
        kinds = {"protocol": KNOWN_PROTOCOLS, "dataset": tuple(datasets), "shots": None}
        return cls(
            path,
            [
                read_rule(rule, kinds, f"{path}, rule {number}")
                for number, rule in enumerate(rules, 1)
            ],
        )

    def merge(self, cfg: CfgNode, **run: Any) -> list[Rule]:
        """Merges the rules that hold for a run into a config; returns those.

        Args:
            run: see ``Rule.holds``.

        Raises:
            UserError: a rule, whether it holds or not, has an unknown key, or a value of another type.
        """
        applied = []
        for number, rule in enumerate(self.rules, 1):
            holds = rule.holds(**run)
            if holds or not all(is_known(key, cfg) for key in rule.settings[::2]):
                merge(cfg, list(rule.settings), f"config file {self.path}, rule {number}")
            if holds and (rule.settings or rule.default_shots == run.get("shots")):
                applied.append(rule)
        return applied

    def default_shots(self, protocol: str) -> int | None:
        """Training images a class of an experiment where none are asked for; None: the protocol's own."""
        return next(
            (
                rule.default_shots
                for rule in reversed(self.rules)
                if rule.default_shots and rule.holds(protocol=protocol)
            ),
            None,
        )


def read_rule(found: Any, kinds: dict[str, tuple[str, ...] | None], where: str) -> Rule:
    """
    Args:
        kinds: condition → the values it may have; None: whole numbers.

    Raises:
        UserError: see ``Recipe.read``.
    """
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(
            f"{where}: {found!r} must have keys, such as {{protocol: fewshot, OPTIM.MAX_EPOCH: 100}}"
        )
    conditions, settings, shots = {}, [], None
    for key, value in found.items():
        if key == "default_shots":
            shots = value
            if not is_count(value):
                raise UserError(
                    f"{where}: default_shots is {value!r}, it takes a whole number from 1 on"
                )
        elif key in kinds:
            known, values = kinds[key], tuple(value) if isinstance(value, list) else (value,)
            for one in values:
                if known is None and not is_count(one):
                    raise UserError(f"{where}: {key} is {one!r}, it takes whole numbers from 1 on")
                if known is not None and one not in known:
                    raise UserError(
                        f"{where}: unknown {key} {one!r}{nearest(str(one), known)}; known: {', '.join(known)}"
                    )
            conditions[key] = values
        elif key != key.upper():
            raise UserError(
                f"{where}: unknown condition {key!r}{nearest(key, kinds)}; known: {', '.join(kinds)}, default_shots"
            )
        else:
            settings += [key, value]
    return Rule(conditions, tuple(settings), shots)


def is_known(key: str, cfg: CfgNode) -> bool:
    *nodes, name = key.split(".")
    for node in nodes:
        cfg = cfg.get(node) if isinstance(cfg, CfgNode) else None
    return isinstance(cfg, CfgNode) and name in cfg


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1

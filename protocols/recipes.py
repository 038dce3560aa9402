"""The rules of a recipe: what its settings are for one protocol, data set or number of shots, where the method's authors varied them.

A config file of a trainer may end with

    RULES:
      - {protocol: fewshot, TRAINER.COOP.N_CTX: 16}
      - {protocol: fewshot, shots: [2, 3, 4], OPTIM.MAX_EPOCH: 100}
      - {dataset: imagenet, OPTIM.MAX_EPOCH: 50}
      - {protocol: xd, target: imagenetv2, TRAINER.MMRL.SCALE: 1.0}

Lower-case keys are conditions, which must all hold; the others are settings. Rules are applied in their order, so a later one wins; they come
over the rest of the file and under what is given on the command line. ``run.py --plan`` shows what comes of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from yacs.config import CfgNode

from trainers.common.config_files import flatten, merge
from trainers.common.console import counted
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

    conditions: dict[str, tuple[object, ...]]
    settings: tuple[object, ...]
    default_shots: int | None = None

    def holds(self, **run: object) -> bool:
        """Whether all conditions hold for a run, condition → its value there; one that is left out does not hold."""
        return all(run.get(name) in values for name, values in self.conditions.items())

    def __str__(self) -> str:
        conditions = (
            f"{name} {'|'.join(map(str, values))}" for name, values in self.conditions.items()
        )
        parts = [f"{key} {value!r}" for key, value in zip(self.settings[::2], self.settings[1::2])]
        if self.default_shots:
            parts.append(counted(self.default_shots, "shot"))
        return f"{', '.join(conditions) or 'always'}: {', '.join(parts)}"


@dataclass(frozen=True)
class Recipe:
    """A trainer's config file with rules; see the head of this module.

    Attributes:
        path: of the file.
        rules: in their order.
        settings: the rest of the file, node by node.
    """

    path: str
    rules: list[Rule]
    settings: dict[str, object]

    @property
    def is_trained(self) -> bool:
        """Whether the trainer learns: the recipe of one that doesn't has no optimiser."""
        return "OPTIM" in self.settings

    @classmethod
    def read(cls, path: str, datasets: Sequence[str]) -> "Recipe":
        """
        Args:
            datasets: the names that the conditions ``dataset`` and ``target`` may have.

        Raises:
            UserError: a rule is malformed, or names a protocol or data set that is not known: it would never hold.
        """
        try:
            content = read_yaml(path)
        except (OSError, ValueError) as error:
            raise UserError(f"config file {path}: {error}") from error
        # a copy: what is read is kept for the next reader; ``merge`` says that it must be a dict
        settings = dict(content) if isinstance(content, dict) else {}
        entries = settings.pop(KEY, [])
        if not isinstance(entries, list):
            raise UserError(
                f"{path}: {KEY} must be a list of rules, such as - {{protocol: fewshot, OPTIM.MAX_EPOCH: 100}}"
            )
        known = {
            "protocol": EXPERIMENTS.values(),
            "dataset": datasets,
            "target": datasets,
            "shots": None,
        }
        rules = [
            read_rule(entry, known, f"{path}, rule {number}")
            for number, entry in enumerate(entries, 1)
        ]
        return cls(path, rules, settings)

    def holding(self, **run: object) -> list[Rule]:
        """The rules that hold for a run, see ``Rule.holds``."""
        return [
            rule
            for rule in self.rules
            if rule.holds(**run) and (rule.settings or rule.default_shots == run.get("shots"))
        ]

    def merge(self, cfg: CfgNode, **run: object) -> list[Rule]:
        """Merges the rules that hold for a run into a config; returns those.

        Args:
            run: see ``Rule.holds``.

        Raises:
            UserError: a rule, whether it holds or not, has an unknown key, or a value of another type.
        """
        holding, known = self.holding(**run), flatten(cfg).keys()
        for number, rule in enumerate(self.rules, 1):
            if rule in holding or not known >= {*rule.settings[::2]}:
                merge(cfg, list(rule.settings), f"config file {self.path}, rule {number}")
        return holding

    def default_shots(self, protocol: str) -> int | None:
        """Training images a class of an experiment where none are asked for; None: the protocol's own."""
        holding = [rule.default_shots for rule in self.rules if rule.holds(protocol=protocol)]
        return next(filter(None, reversed(holding)), None)


def read_rule(entry: object, known: Mapping[str, Iterable[str] | None], where: str) -> Rule:
    """
    Args:
        known: condition → the values it may have; None: whole numbers.

    Raises:
        UserError: see ``Recipe.read``.
    """
    if not isinstance(entry, dict) or not all(isinstance(key, str) for key in entry):
        raise UserError(
            f"{where}: {entry!r} must have keys, such as {{protocol: fewshot, OPTIM.MAX_EPOCH: 100}}"
        )
    conditions: dict[str, tuple[object, ...]] = {}
    settings: list[object] = []
    for key, value in entry.items():
        values = tuple(value) if isinstance(value, list) else (value,)
        names = list(dict.fromkeys(known.get(key) or ()))
        if key in known:
            conditions[key] = values
        elif key == key.upper():
            settings += [key, value]
            continue
        elif key != "default_shots":
            raise UserError(
                f"{where}: unknown condition {key!r}{nearest(key, known)}; known: {', '.join(known)}, default_shots"
            )
        if not names and not all(type(value) is int and value >= 1 for value in values):
            raise UserError(f"{where}: {key} is {value!r}, it takes whole numbers from 1 on")
        for name in values:
            if names and name not in names:
                raise UserError(
                    f"{where}: unknown {key} {name!r}{nearest(str(name), names)}; known: {', '.join(names)}"
                )
    return Rule(conditions, tuple(settings), entry.get("default_shots"))

"""Descriptions of classes: sentences about each, as language models write them (Pratt et al., 2023,
"What does a platypus look like? Generating customized prompts for zero-shot image classification":
CuPL).

``DATASET.DESCRIPTIONS`` names a JSON file, class name → list of sentences, as CuPL
and its followers publish them. The sentences count like the hand-crafted prompts of a method: the
hand-crafted feature of a class is the mean over all of them.
"""

import hashlib
from collections.abc import Sequence

from yacs.config import CfgNode

from ..common.console import first_few
from ..common.errors import UserError, raise_machines
from ..common.readers import parse_json, read_text
from ..prompting.tokens import LONGEST_NAME
from .classnames import canonical

FORM = (
    'a JSON file of class name → list of sentences, such as {"cat": ["A cat has whiskers and a long tail."]}, '
    f"each of at most {LONGEST_NAME} characters"
)


def note_content(cfg: CfgNode) -> None:
    """Puts the file's fingerprint into the config, so that a run with other sentences is another run.

    Raises:
        UserError: as ``read``.
    """
    if path := cfg.DATASET.DESCRIPTIONS:
        text, _ = read(path)
        cfg.DATASET.DESCRIPTIONS_HASH = hashlib.sha256(text.encode()).hexdigest()[:16]


def read(path: str) -> tuple[str, object]:
    """Return the file's text, and its content.

    Raises:
        UserError: the file is missing, or not JSON.
    """
    try:
        text = read_text(path)
        return text, parse_json(text)
    except (OSError, ValueError) as error:
        raise_machines(error, path)
        raise UserError(
            f"DATASET.DESCRIPTIONS {path} can't be read ({error}): give {FORM}"
        ) from error


def read_descriptions(path: str, classnames: Sequence[str]) -> list[list[str]]:
    """The sentences of each class, in the order of the K names; names are compared in their
    ``canonical`` form.

    Raises:
        UserError: the file holds no descriptions, a sentence is invalid, or classes are missing.
    """
    _, content = read(path)
    if not isinstance(content, dict):
        raise UserError(
            f"DATASET.DESCRIPTIONS {path} holds a {type(content).__name__}: give {FORM}"
        )
    for name, sentences in content.items():
        if (
            not isinstance(sentences, list)
            or not sentences
            or not all(
                isinstance(text, str) and text.strip() and len(text) <= LONGEST_NAME
                for text in sentences
            )
        ):
            raise UserError(
                f"DATASET.DESCRIPTIONS {path}: {name!r} has {sentences!r:.60}: give {FORM}"
            )
    by_name = {canonical(name): sentences for name, sentences in content.items()}
    missing = [repr(name) for name in classnames if canonical(name) not in by_name]
    if missing:
        raise UserError(
            f"DATASET.DESCRIPTIONS {path} says nothing of {first_few(missing)} of the {len(classnames)} "
            "classes: add them, under the data set's own names"
        )
    return [by_name[canonical(name)] for name in classnames]

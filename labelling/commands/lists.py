"""Prints names that the other options take: trainers, CLIPs and settings; and the version."""

import argparse
import sys
from collections.abc import Iterator, Sequence

from trainers import METHODS, MULTI_LABEL_METHODS, __version__, method_class, multi_label_class
from trainers.common.imports import importing
from trainers.common.setting import Settings, under

LISTABLE = ("trainers", "clips", "settings")
# beside those that have a name of their own
FURTHER_CLIPS = {
    "path/to/clip.pt": "a file in OpenAI's format",
    "hf:<owner>/<name>": "a CLIP or SigLIP of transformers in Hugging Face's cache",
    "open_clip:<model>/<weights>": "a model of OpenCLIP: open_clip.list_pretrained() lists them",
    "open_clip:hf-hub:<owner>/<name>": "a repository that OpenCLIP saved, such as BioCLIP 2",
    "open_clip:local-dir:<folder>": "a folder as OpenCLIP saves it",
}


def add_list_and_version(parser: argparse.ArgumentParser) -> None:
    """Adds ``--list`` and ``--version``, which end the command."""
    parser.add_argument(
        "--list", action=List, choices=LISTABLE, help="print the names of one kind, and end"
    )
    add_version(parser)


def add_version(parser: argparse.ArgumentParser) -> None:
    """Adds ``--version``, which ends the command."""
    parser.add_argument("--version", action="version", version=f"cdc-prompt-learning {__version__}")


class List(argparse.Action):
    """Prints what ``LISTABLE`` are and ends the command, as ``--help`` does."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option: str | None = None,
    ) -> None:
        """Print the names of one kind and end with exit code 0."""
        with importing():
            for line in lines_of(str(values)):
                sys.stdout.write(f"{line}\n")
        parser.exit()


def lines_of(kind: str) -> Iterator[str]:
    """Yield a line for each name of a kind, its meaning after a tab."""
    if kind == "trainers":
        yield from map(trainer_line, METHODS)
        yield "BinaryProbe\tfor multi-label pictures: a logistic regression per label"
    elif kind == "clips":
        from trainers.prompting.backbone import BACKBONES

        yield from BACKBONES
        yield from (f"{name}\t{says}" for name, says in FURTHER_CLIPS.items())
    else:
        yield from settings_lines()


def trainer_line(name: str) -> str:
    """Return a trainer's name and the first sentence of its file."""
    module = sys.modules[method_class(name).__module__]
    says = " ".join((module.__doc__ or "").split())
    return f"{name}\t{says.partition('. ')[0]}"


def settings_lines() -> Iterator[str]:
    """Yield each setting of a run and of a trainer, with its default and its meaning."""
    from trainers.settings import RUN

    known: Settings = dict(RUN)
    for name in METHODS:
        known |= under(f"TRAINER.{name.upper()}", method_class(name).declared)
    for name in MULTI_LABEL_METHODS:
        known |= under(f"TRAINER.{name.upper()}", multi_label_class(name).declared)
    for path, setting in sorted(known.items()):
        yield f"{path}\t{setting.default!r}\t{setting.says}"

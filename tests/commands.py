"""Reads commands as a shell would, and has the programs themselves read their words: an option, a
trainer, a data set or a setting that does not exist fails.

Nothing is started but the scripts of ``scripts/``, with a stand-in for Python that shows what they
ask it for.
"""

import argparse
import importlib
import inspect
import os
import re
import shlex
import subprocess
import textwrap
from pathlib import Path
from unittest import mock

import labelling.checkout.image_folder  # noqa: F401  (registers ImageFolder)
from labelling.checkout.arguments import asked_of_images
from labelling.own_run import config_of_images, for_trainer
from labelling.task import SINGLE_LABEL
from protocols import launch, runs
from protocols.arguments import build_config
from scripts.missing import requirements
from tests.runs import REPOSITORY
from trainers import METHODS

# of other programs, which read their words themselves
OTHERS = set(
    "cat cd chromium cp curl echo eval export find git hf ls npm openssl pip source squeue tail "
    ".venv/bin/ruff".split()
)
# of our own that pip installs: their modules here
INSTALLED = {
    "cdc-train": "labelling.commands.train",
    "cdc-predict": "labelling.commands.predict",
    "cdc-serve": "labelling.commands.serve",
}
MODULES_OF_OTHERS = {"label_studio_sdk.converter.main", "pip", "pytest", "venv"}
# whose words are not run.py's: they prepare, or check the code
PREPARING = set(
    "check.sh docs.sh install_browser.sh install_slurm.sh start_slurm.sh test.sh".split()
)
VALUES = {"DATA": "data", "TASK": "1", "all": "CDC"}  # of variables that are set elsewhere
TUTORIALS_OWN = "LowRankCoOp"  # the trainer that a tutorial writes
STAND_IN = """#!/usr/bin/env bash
case "$1" in
scripts/missing.py) ;;
*) printf '%q ' "$@"; echo ;;
esac
"""


def commands(text):
    """The simple commands of a piece of shell, in order: the variables set for each, and its words."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        settings = {}
        words = []
        for token in [*lexer, ";"]:
            if re.fullmatch("[();&|]+", token):
                if words:
                    yield settings, words
                settings = {}
                words = []
            elif not words and (found := re.fullmatch(r"(\w+)=(.*)", token, re.DOTALL)):
                settings[found[1]] = found[2]
            else:
                words.append(re.sub(r"\$(\w+)", lambda name: VALUES.get(name[1], name[0]), token))


def check(text, folder):
    """Checks all commands of a piece of shell; they may write to the folder, in which they are.

    Raises:
        AssertionError: one would not work.
    """
    for settings, (program, *words) in commands(text):
        if program in ("python", "python3"):
            check_python(words)
        elif program in INSTALLED:
            read(importlib.import_module(INSTALLED[program]).main, words)
        elif program == "bash":
            check_script(words, settings, folder)
        else:
            assert program in OTHERS, f"what is {program}?"
        if program == "pip":
            for extras in re.findall(r"\[(\w+(?:,\w+)*)\]", " ".join(words)):
                requirements(extras.split(","))


# ---- Python ----


class Read(BaseException):
    """What a command's parser has made of its words; nothing of the command comes after it."""

    def __init__(self, namespace):
        self.namespace = namespace


def check_python(words):
    program, *words = words
    if program == "-c":
        compile(words[0], "-c", "exec")
    elif program != "-m":
        assert (REPOSITORY / program).is_file(), f"there is no {program}"
        check_program(program.removesuffix(".py").replace("/", "."), words)
    elif words[0] not in MODULES_OF_OTHERS:
        check_program(words[0], words[1:])


def check_program(name, words):
    is_package = (REPOSITORY / name.replace(".", "/") / "__main__.py").is_file()
    module = importlib.import_module(f"{name}.__main__" if is_package else name)
    if not inspect.signature(module.main).parameters:
        assert not words, f"{name} takes no arguments"
        return
    args = read(module.main, words)
    if name == "run":
        check_plan(args)
    if name == "train" and args.trainer != TUTORIALS_OWN:
        check_training(args)


def read(main, words):
    """What a command's parser makes of words, no option of which is shortened."""
    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, *given):
        self.allow_abbrev = False
        raise Read(parse(self, *given))

    with mock.patch.object(argparse.ArgumentParser, "parse_args", parse_args):
        try:
            main(words)
        except Read as done:
            return done.namespace
        except SystemExit as end:
            raise AssertionError(f"{' '.join(words)}: exit code {end.code}") from end
    raise AssertionError(f"{' '.join(words)}: the words were not read")


def check_plan(args):
    """Trainers, data sets, recipes and rows that exist, and settings that its first run takes."""
    write_descriptions(args.opts)
    if TUTORIALS_OWN not in args.trainer:
        launch.wanted_config(runs.plan_runs(args)[0], args)


def check_training(args):
    """A trainer and files that exist, and settings that the config takes."""
    trainer = args.trainer or SINGLE_LABEL.trainer
    assert trainer in METHODS, trainer
    write_descriptions([*(args.images or ()), *args.opts])
    if args.images:
        with mock.patch("labelling.request.check_images"):  # they need not be there
            config_of_images(for_trainer(asked_of_images(args), trainer))
        return
    args.config_file = args.config_file or f"configs/trainers/{trainer}/tiny.yaml"
    for name in ("config_file", "dataset_config_file"):
        setattr(args, name, str(REPOSITORY / getattr(args, name)))
    build_config(args)


def write_descriptions(options):
    """The files of sentences that settings name, which a config is made with."""
    for key, value in zip(options, options[1:]):
        if key == "DATASET.DESCRIPTIONS":
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            Path(value).write_text('{"cat": ["a cat."]}')


# ---- scripts ----


def check_script(words, settings, folder):
    script, *words = words
    path = REPOSITORY / script
    assert path.is_file(), f"there is no {script}"
    text = path.read_text("utf-8") + (REPOSITORY / "scripts/protocol.sh").read_text("utf-8")
    for name in settings:
        assert re.search(rf"\$\{{?{name}\b", text), f"{script} does not know {name}"
    if path.name not in PREPARING:
        for line in asked_of_python(path, words, settings, folder):
            check_python(shlex.split(line))


def asked_of_python(path, words, settings, folder):
    """The words with which a script calls Python, a line each."""
    python = folder / "stand-in/python"
    if not python.exists():
        python.parent.mkdir()
        python.write_text(STAND_IN)
        python.chmod(0o755)
    env = {"PATH": f"{python.parent}:{os.environ['PATH']}", "VIRTUAL_ENV": str(python.parent)}
    done = subprocess.run(
        ["bash", str(path), *words], env={**env, **settings}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    asked = [line for line in done.stdout.splitlines() if re.match("(run.py|-m) ", line)]
    assert asked, f"{path.name} asks Python for nothing"
    return asked


# ---- docstrings ----

PIECE = re.compile(r"(?m)(?:^ {4}\S.*\n?)+")
OF_SHELL = re.compile(r"(?m)^ *(?:\w+=\S+ )*(?:python|bash|cdc-train|cdc-predict|cdc-serve) ")


def shell_in(docstring):
    """The commands that a module's docstring shows, as one piece of shell."""
    pieces = [piece for piece in PIECE.findall(docstring) if OF_SHELL.search(piece)]
    return "\n".join(map(textwrap.dedent, pieces))

"""New rounds of a run from annotations: a process of its own trains while the old round answers."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from trainers.common.config_files import leaves
from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.files import write_text
from trainers.common.fingerprints import roots_in
from trainers.common.interruption import end_with_input
from trainers.common.readers import read_json
from trainers.common.record_file import RECORD_FILE, is_multi_label, read_record

from ..own_run import complete, config_of_images
from ..request import ARGUMENTS, BOXES, GROUP_BY, ask
from ..rounds import REFIT, newest_finished

if TYPE_CHECKING:
    from ..classifier import PromptedClassifier
    from .demo import Demo

log = logging.getLogger("serve")
# end of the name of a file beside the run: an export of the annotations that were sent
ANNOTATIONS = "-annotations.json"
# starts cdc-train; the first word is the folder of the package, in the place of the working folder
TRAIN_PROGRAM = """
import sys, threading
sys.path[0] = sys.argv.pop(1)
from {interruption} import end_with_input
from {package}.commands.installed import train
threading.Thread(target=end_with_input, daemon=True).start()
sys.exit(train())
"""
ANNOTATION_FIELDS = ("id", "result", "created_at", "updated_at", "was_cancelled")


class Rounds:
    """The annotations of a run, and the training of its next round.

    Args:
        demo: takes the classifier of a finished round.
        folder: of the run; load: loads its newest round.
        after: new annotations that begin a round; 0: none do.

    Raises:
        UserError: somebody's file is where annotations are kept.
    """

    def __init__(
        self, demo: "Demo", folder: str, load: Callable[[], "PromptedClassifier"], after: int
    ) -> None:
        self.demo = demo
        self.folder = folder
        self.load = load
        self.after = after
        self.file = os.path.abspath(folder) + ANNOTATIONS
        self.tasks = read_annotations(self.file)
        self.new = 0
        self.lock = Lock()
        self.training: Thread | None = None

    def take_annotation(
        self, action: str, place: str, task: Mapping[str, Any], annotation: Mapping[str, Any]
    ) -> str:
        """Keep an annotation of a picture, and begin a round if it is time; return what happens, in words.

        Args:
            action: Label Studio's, such as ``ANNOTATION_CREATED``; place: path of the picture.

        Raises:
            LookupError, TypeError, AttributeError: the annotation is of another form.
        """
        made = {key: annotation[key] for key in ANNOTATION_FIELDS if key in annotation}
        if not isinstance(made["result"], list):
            raise TypeError("its result is no list")
        with self.lock:
            known = self.tasks.setdefault(
                place, {"id": task.get("id"), "data": {"image": place}, "annotations": []}
            )
            others = [note for note in known["annotations"] if note.get("id") != made.get("id")]
            is_deleted = action == "ANNOTATION_DELETED"
            known["annotations"] = others if is_deleted else [*others, made]
            write_text(self.file, json.dumps([*self.tasks.values()], indent=1) + "\n")
            self.new += 1
        if self.after and self.new >= self.after:
            return self.begin()
        return "kept"

    def begin(self) -> str:
        """Begin a round, unless one is being trained; return what happens, in words."""
        with self.lock:
            if self.training is not None and self.training.is_alive():
                return "kept; a round is being trained"
            if not self.tasks:
                return "there are no annotations"
            self.new = 0
            self.training = Thread(target=self.train, name="round", daemon=True)
            self.training.start()
        return "a round is trained"

    def train(self) -> None:
        """Train the next round in a process of its own, and have it answer from then on."""
        try:
            log.info("A round is trained with %s", counted(len(self.tasks), "annotated picture"))
            last = "it said nothing"
            with start_training(
                words_of(self.folder, self.file, self.demo.classifier.cfg.DEVICE)
            ) as training:
                for line in training.stderr or ():
                    last = line.strip() or last
            if training.returncode:
                log.error("No round was made, the former one answers: %s", last)
                return
            self.demo.take(self.load())
            log.info("The new round answers")
        except UserError as error:
            log.error("No round was made, the former one answers: %s", error)


def start_training(words: Sequence[str]) -> "subprocess.Popen[str]":
    """Start ``cdc-train`` in a process of its own, which ends when this one does, however: its standard input
    then ends."""
    package = Path(__file__).parents[1]
    program = TRAIN_PROGRAM.format(
        interruption=end_with_input.__module__, package=__name__.partition(".")[0]
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(package.parent), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def read_annotations(file: str) -> dict[str, dict[str, Any]]:
    """Return the tasks of a file of annotations, by the path of the picture; none where there is no file.

    Raises:
        UserError: it is another file.
    """
    if not os.path.isfile(file):
        return {}
    try:
        known: Any = read_json(file)
        for task in known:
            task["annotations"] = [*task["annotations"]]
        return {task["data"]["image"]: task for task in known}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{file} is not a file of annotations that cdc-serve has written, and it keeps them there: move it"
        ) from error


def words_of(folder: str, annotations: str, device: str) -> list[str]:
    """Return the words for ``cdc-train`` that make the next round of a run, on its pictures and on a file of
    annotations: its trainer, CLIP, seed and settings are those of the run, but for the device.

    Raises:
        UserError: the folder holds no finished round, or its pictures are elsewhere.
    """
    former = newest_finished(folder)
    record = read_record(f"{former}/{RECORD_FILE}")
    known = {**dict(leaves(record["config"])), "DEVICE": device}
    multi_label = is_multi_label(record)
    roots = [root for root in roots_in(str(known["DATASET.ROOT"])) if root != annotations]
    given = [*roots, os.path.abspath(annotations)]
    request = ask(
        given,
        multi_label=multi_label,
        trainer=record["trainer"],
        backbone=str(known["MODEL.BACKBONE.NAME"]),
        folder=folder,
        shots=int(str(known["DATASET.NUM_SHOTS"])),
        seed=int(str(known["SEED"])),
        group_by=str(known[GROUP_BY]),
        boxes=bool(known[BOXES]),
    )
    usual = dict(leaves(config_of_images(complete(request, [])[0])))
    settings: list[str] = []
    for key, value in usual.items():
        own = known.get(key, value)
        if key not in ARGUMENTS and json.dumps(own) != json.dumps(value):
            settings += [key, str(own)]
    words = [
        *given,
        "--trainer",
        request.trainer,
        "--backbone",
        request.backbone,
        "--output-dir",
        folder,
        "--shots",
        str(request.shots),
        "--seed",
        str(request.seed),
        "--multi-label" if multi_label else "--single-label",
    ]
    if known[BOXES]:
        words += ["--boxes"]
    if known[GROUP_BY]:
        words += ["--group-by", str(known[GROUP_BY])]
    if os.path.isdir(f"{former}/{REFIT}"):
        words.append("--refit")
    return [*words, "--settings", *settings] if settings else words

"""The questions of the page to a trained run: pictures, class names, answers."""

import io
import logging
import os
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy
from PIL import Image

from trainers.common.boxes import file_of
from trainers.common.console import printable
from trainers.common.errors import UserError
from trainers.common.image_files import read_picture
from trainers.common.record_file import Record, is_multi_label, shown_name
from trainers.evaluation.figures import votes_alone

from .answer import NONE_OF_THE_LABELS, describe

if TYPE_CHECKING:
    from werkzeug.datastructures import FileStorage

    from results.runs import Arrays, FinishedRun

    from ..classifier import PromptedClassifier

MAX_NAMES = 1000  # that a user may enter
KEPT_UPLOADS = 8  # latest uploaded pictures
EXAMPLES = 8
PIXELS = 384  # of the longer side of a picture on the page
log = logging.getLogger("serve")
Example = tuple[str, str]  # path of a picture, its class name
# of a picture, names, and its label in the data set, if that is known
Answer = Callable[[Image.Image, list[str], str | None], dict[str, Any]]
Sent = tuple[
    str, str, bytes
]  # key of a picture that the browser has sent, its file's name, its content


def find_examples(folder: str | Path, record: Record, root: str) -> list[Example]:
    """Test images of a run, from the least to the most uncertain in equal steps: at most ``EXAMPLES``
    pairs (path, class name).

    There are none, with a warning, where the run was not tested or its data set is not below ``root``.

    Raises:
        UserError: the root is not a folder, or the run's predictions can't be read.
    """
    try:
        from report.pictures import check_root, find_images
        from results.runs import FinishedRun

        from ..checkout import image_folder  # noqa: F401  (registers ImageFolder, one's own pictures)
    except ImportError:
        log.info("No examples: they are for a checkout of the repository")
        return []

    check_root(root)
    run = FinishedRun(Path(folder).resolve(), record)
    examples = []
    if run.answers and (paths := find_images(run, root)):
        for place in spread(uncertainty_of(run.answers)):
            image = str(run.answers["image"][place])
            if image in paths and os.path.isfile(file_of(paths[image].path)):
                examples.append((paths[image].path, truth_in_words(run, place)))
    if not examples:
        log.warning("No examples: the run was not tested, or its test images are not in %s", root)
    return examples


def uncertainty_of(answers: "Arrays") -> numpy.ndarray:
    """Return the uncertainty (N,) of a run's kept answers (``Answers``)."""
    # here, since they take seconds
    from results.answers import UNCERTAINTY
    from trainers.evaluation.multi_label import given_in, likelihood

    if UNCERTAINTY in answers:  # an image has one label
        known: numpy.ndarray = answers[UNCERTAINTY]
        return known
    return 1 - likelihood(given_in(answers), answers["probability"])


def spread(uncertainty: numpy.ndarray) -> numpy.ndarray:
    """Return the places of ``EXAMPLES`` images, from the least to the most uncertain in equal steps."""
    steps = numpy.linspace(0, len(uncertainty) - 1, EXAMPLES).astype(int)
    places: numpy.ndarray = numpy.argsort(uncertainty, kind="stable")[steps]
    return places


def truth_in_words(run: "FinishedRun", place: int) -> str:
    """Return the class of an image, or its labels with a comma in between."""
    answers = run.known_answers
    if "truth" not in answers:
        return run.class_name(int(answers["label"][place]))
    names = [name for name, has in zip(run.classnames, answers["truth"][place]) if has]
    return ", ".join(names) or NONE_OF_THE_LABELS


def among_classes(classifier: "PromptedClassifier") -> Answer:
    """Return what a classifier says of a picture among class names (``answer.describe``); a multi-label
    run answers by its own labels."""
    # the last list of names, which the next picture is often asked about, too
    with_classes = lru_cache(maxsize=1)(classifier.with_classes)

    def answer(image: Image.Image, names: list[str], truth: str | None) -> dict[str, Any]:
        if sorted(names) == sorted(classifier.classnames):
            return describe(classifier.predict(image), classifier.rule, classifier.record, truth)
        if len(names) > MAX_NAMES:
            raise UserError(f"there are {len(names)} class names: give at most {MAX_NAMES}")
        return describe(with_classes(tuple(names)).predict(image), None, classifier.record)

    return answer


class Demo:
    """A run to ask, and the pictures that it can be asked about: the examples, and the last ``KEPT_UPLOADS``
    that the browser has sent.

    Args:
        classifier: of the run.
        examples: list of (path, class name).
        root: folder whose files programs may name; "": none.
    """

    def __init__(
        self,
        classifier: "PromptedClassifier",
        examples: Sequence[Example] = (),
        root: str = "",
    ) -> None:
        self.root = root
        self.multi_label = is_multi_label(classifier.record)
        # one question after another: the model is not shared; all else is answered meanwhile
        self.lock = Lock()
        self.take(classifier)
        self.examples = {
            f"example-{number}": example for number, example in enumerate(examples, start=1)
        }
        self.sent: deque[Sent] = deque(maxlen=KEPT_UPLOADS)

    def take(self, classifier: "PromptedClassifier") -> None:
        """Have a classifier of the run answer from now on: at first, and that of each further round."""
        with self.lock:
            self.classifier = classifier
            self.answer = among_classes(classifier)
            self.classnames = classifier.classnames

    @property
    def title(self) -> str:
        record = self.classifier.record
        return f"{record['trainer']} on {shown_name(record)}, {record['classes']} classes, seed {record['seed']}"

    @property
    def source(self) -> str:
        """A description of the examples."""
        is_seen = "folds" in self.classifier.record
        return "images, all of which it was trained on" if is_seen else "test images"

    @property
    def tested(self) -> str:
        """The run's accuracy on its test images, in words; "" where it was not tested."""
        record = self.classifier.record
        said = self.classifier.task.said(record)
        metrics = record["metrics"].get("test", {})
        templates = metrics.get("template_accuracy", ())
        votes = f" ({votes_alone(templates)})" if len(templates) > 1 else ""
        return said and f"{said}{votes}."

    def keep_uploads(self, files: Sequence["FileStorage"]) -> str:
        """Keeps pictures that the browser has sent, ``werkzeug`` files; returns the key of the first.

        Raises:
            UserError: there are too many, or one can't be read; then none is kept.
        """
        if len(files) > KEPT_UPLOADS:
            raise UserError(
                f"there are {len(files)} pictures: give at most {KEPT_UPLOADS} here, and more to predict.py"
            )
        pictures = []
        for file in files:
            content = file.stream.read()
            name = printable(file.filename or "that was sent")
            self.read(content, name)
            pictures.append((secrets.token_hex(8), name, content))
        self.sent.extend(pictures)
        return pictures[0][0]

    def read(self, content: bytes, name: str) -> Image.Image:
        """The RGB image in a file's content.

        Raises:
            UserError: it can't be read.
        """
        file = io.BytesIO(content)
        try:
            return read_picture(file, self.classifier.background)
        except UserError as error:
            raise UserError(str(error).replace(str(file), name)) from error

    def open(self, key: str) -> Image.Image:
        """The RGB image of a key.

        Raises:
            UserError: it is not there any more, or can't be read.
        """
        if key in self.examples:
            return read_picture(self.examples[key][0], self.classifier.background)
        for its_key, name, content in list(self.sent):
            if its_key == key:
                return self.read(content, name)
        raise UserError("this picture is not kept any more: choose it again")

    def shown(self, key: str) -> bytes:
        """A PNG of at most ``PIXELS`` pixels a side, as bytes (``open``)."""
        small = self.open(key)
        buffer = io.BytesIO()
        small.thumbnail((PIXELS, PIXELS), Image.Resampling.LANCZOS)
        small.save(buffer, format="PNG")
        return buffer.getvalue()

    def ask(self, image: Image.Image, names: list[str], truth: str | None = None) -> dict[str, Any]:
        """The answer to a picture among names (``among_classes``).

        Args:
            truth: what the data set says of an example.

        Raises:
            UserError: the names don't work.
        """
        with self.lock:
            return self.answer(image, names, truth)

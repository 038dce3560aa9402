"""What the page of ``demo_app.py`` asks a trained run: pictures, class names, answers."""

import hashlib
import io
import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy
from PIL import Image

from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.image_files import ENDINGS, read_picture, reason
from trainers.common.record_file import Record, shown_name
from trainers.evaluation.doubts import Judge

from .answer import describe

if TYPE_CHECKING:
    from werkzeug.datastructures import FileStorage

    from trainers.classifier.prompted import PromptedClassifier

MAX_BYTES = 16 * 2**20  # of a picture
MAX_NAMES = 1000  # that a user may enter
KEPT = 8  # latest uploaded pictures
EXAMPLES = 8
PIXELS = 384  # of the longer side of a picture on the page
log = logging.getLogger("demo_app")
Example = tuple[str, str]  # path of a picture, its class name


def class_names(text: str, known: Sequence[str]) -> list[str]:
    """The names of a text, one a line; blank lines don't count.

    Args:
        known: the run's names. Unchanged they are taken as they are: some data sets have a name twice.

    Raises:
        UserError: there are fewer than two, or two that are one and the same to the text encoder.
    """
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if names == known:
        return names
    if len(names) > MAX_NAMES:
        raise UserError(f"there are {len(names)} class names: give at most {MAX_NAMES}")
    if len(names) < 2:
        raise UserError(
            f"there is {f'only the class name {names[0]!r}' if names else 'no class name'}: give at least two, one a line"
        )
    from trainers.classnames import alike  # here, since it imports torch

    for first, second, *_ in alike(names):
        twin = "" if first == second else f", once as {first!r}"
        raise UserError(f"the class name {second!r} is there twice{twin}: remove one")
    return names


class Pictures:
    """The pictures that can be asked about: the examples, and the last ``KEPT`` that the browser has sent.

    Args:
        examples: list of (path, class name).
        background: see ``read_picture``.
    """

    def __init__(self, examples: Sequence[Example], background: str = "white") -> None:
        self.background = background
        self.examples = {
            f"example-{number}": example for number, example in enumerate(examples, start=1)
        }
        self.sent: dict[str, bytes] = {}
        self.lock = Lock()

    def keep(self, file: "FileStorage") -> str:
        """Keeps what the browser has sent, a ``werkzeug`` file; returns the key under which it is found.

        Raises:
            UserError: it is too large, or no image.
        """
        content = file.stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(
                f"{file.filename!r} is larger than {MAX_BYTES // 2**20} MB: choose a smaller picture"
            )
        try:
            read_picture(io.BytesIO(content))
        except UserError as error:
            why = reason(error.__cause__) if isinstance(error.__cause__, Exception) else error
            raise UserError(
                f"{file.filename!r} cannot be read as a picture ({why}): choose a file that ends in {', '.join(ENDINGS)}"
            ) from error
        key = hashlib.sha256(content).hexdigest()[:16]
        with self.lock:
            self.sent.pop(key, None)
            self.sent[key] = content
            for oldest in list(self.sent)[:-KEPT]:
                del self.sent[oldest]
        return key

    def open(self, key: str) -> Image.Image:
        """The RGB image of a key.

        Raises:
            UserError: it is not there any more, or can't be read any more.
        """
        if key in self.examples:
            return read_picture(self.examples[key][0], self.background)
        content = self.sent.get(key)
        if content is None:
            raise UserError("this picture is not kept any more: choose it again")
        return read_picture(io.BytesIO(content), self.background)

    def shown(self, key: str) -> bytes:
        """A PNG of at most ``PIXELS`` pixels a side, as bytes; see ``open``."""
        small, buffer = self.open(key), io.BytesIO()
        small.thumbnail((PIXELS, PIXELS), Image.Resampling.LANCZOS)
        small.save(buffer, format="PNG")
        return buffer.getvalue()


def find_examples(folder: str | Path, record: Record, root: str) -> list[Example]:
    """Test images of a run, from the least to the most doubted in equal steps: at most ``EXAMPLES`` pairs (path, class name).

    There are none, with a warning, where the run was not tested or its data set is not below ``root``.

    Raises:
        UserError: the root is no folder, or the run's predictions can't be read.
    """
    from results.answers import DOUBT
    from results.report.gallery import check_root, find_images
    from results.runs import Run

    check_root(root)
    run = Run(Path(folder).resolve(), record)
    paths = find_images(run, root) if run.answers else {}
    order = numpy.argsort(run.known_answers[DOUBT], kind="stable").tolist() if paths else []
    there = [
        index
        for index in order
        if os.path.isfile(paths.get(str(run.known_answers["image"][index]), ""))
    ]
    if not there:
        log.warning("No examples: the run was not tested, or its test images are not in %s", root)
        return []
    steps = numpy.linspace(0, len(there) - 1, min(EXAMPLES, len(there))).round().astype(int)
    images, labels = (run.known_answers[name][there][steps].tolist() for name in ("image", "label"))
    return [(paths[image], run.class_name(label)) for image, label in zip(images, labels)]


class Demo:
    """A run to ask.

    Args:
        classifier: a ``PromptedClassifier``.
        judge: of answers to the run's own classes.
        examples: see ``Pictures``.
    """

    def __init__(
        self, classifier: "PromptedClassifier", judge: Judge, examples: Sequence[Example] = ()
    ) -> None:
        self.classifier, self.judge = classifier, judge
        self.pictures = Pictures(examples, classifier.background)
        self.classnames = classifier.classnames
        self.with_classes = lru_cache(maxsize=1)(
            classifier.with_classes
        )  # each holds a CLIP of its own
        self.lock = (
            Lock()
        )  # one question after another: the model is not shared; all else is answered meanwhile

    @property
    def title(self) -> str:
        record = self.classifier.record
        shots = f", {counted(record['shots'], 'image')} a class" if record["shots"] > 0 else ""
        return f"{record['trainer']} on {shown_name(record)}, {record['classes']} classes{shots}, seed {record['seed']}"

    @property
    def accuracy(self) -> str:
        """How good the model is on its own classes, in words; "" where the run was not tested."""
        tested = self.classifier.record["metrics"].get("test")
        return (
            f"Right on {tested['accuracy']:.1f} % of its {counted(tested['images'], 'test image')}."
            if tested
            else ""
        )

    def ask(self, key: str, names: list[str]) -> dict[str, Any]:
        """The answer to a picture among class names, see ``answer.describe``.

        Raises:
            UserError: the picture is not there, or the names don't work.
        """
        classifier = self.classifier
        judge: Judge | None = self.judge
        _, truth = self.pictures.examples.get(key, ("", None))
        with self.lock:
            image = self.pictures.open(key)
            if names != self.classnames:
                judge = truth = None
                try:
                    classifier = self.with_classes(tuple(names))
                except UserError as error:
                    raise UserError(f"these class names can't be asked for: {error}") from error
            answers = classifier.predict(image)
        return describe(answers, judge, truth)

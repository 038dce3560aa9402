"""A trained run as a classifier of images: no data set, no training, a few lines in anybody's program.

from trainers import PromptedClassifier          # installed: from cdc_trainers import PromptedClassifier

classifier = PromptedClassifier.load("output/my_run/seed1")
answers = classifier.predict(["cat.jpg", "dog.png"])
print(answers.labels, answers.probabilities, answers.uncertainty)
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy
import torch
from dassl.data.transforms import build_transform
from torch import Tensor
from yacs.config import CfgNode

from ..classnames import check_names
from ..common.errors import UserError
from ..common.record_file import Record
from ..data.pictures import (
    Picture,
    Pictures,
    is_path,
    one_by_one,
    transformed,
    write_class_folders,
)
from ..engine.checkpoint import load_trained
from ..evaluation.prediction import Prediction
from ..method import Method
from .export import export
from .saved_run import (
    class_names,
    config_of,
    find_trainer,
    read_record,
    rebuilt,
    silence,
    untrained,
)

if TYPE_CHECKING:
    import pandas


@dataclass
class Answers:
    """What a classifier says of N images over K classes; numpy arrays in fp32.

    Attributes:
        classnames: the K names.
        images: N file names, as they were given; None for an image that came without one.
        labels: N names, each image's most probable class.
        probabilities: (N, K), rows sum to one.
        uncertainty: (N,) in [0, 1]: 1 − the largest probability, which ranks mistakes better than vacuity (docs/uncertainty.md).
        vacuity: (N,) in (0, 1], the uncertainty mass of the fused opinion; None where the method learns no evidence.
        conflict: (N,) in [0, 1), the mass of the templates' joint belief on different classes; None likewise.
        votes: (N, M, K), the probabilities of each of M templates alone; None where the method has no templates to fuse.
    """

    classnames: list[str]
    images: list[str | None]
    labels: list[str]
    probabilities: numpy.ndarray
    uncertainty: numpy.ndarray
    vacuity: numpy.ndarray | None = None
    conflict: numpy.ndarray | None = None
    votes: numpy.ndarray | None = None

    def to_pandas(self) -> "pandas.DataFrame":
        """A ``DataFrame``, one row an image: image, label, probability, uncertainty, where there are any vacuity and conflict, and
        ``vote_1`` … ``vote_M``, the class that each template would answer.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UserError(
                "to_pandas needs pandas, which is not installed: pip install pandas"
            ) from error
        columns = {
            "image": self.images,
            "label": self.labels,
            "probability": self.probabilities.max(axis=1),
            "uncertainty": self.uncertainty,
        }
        if self.vacuity is not None:
            columns.update(vacuity=self.vacuity, conflict=self.conflict)
        if self.votes is not None:
            for template, vote in enumerate(self.votes.argmax(axis=2).T, start=1):
                columns[f"vote_{template}"] = [self.classnames[label] for label in vote]
        return pandas.DataFrame(columns)


class PromptedClassifier:
    """A CLIP under trained prompts, ready to label images; from a run by ``load``, for other classes by ``with_classes``.

    Images may be given as one or as many (a list, any iterable, or an array or tensor with one dimension more):

    - a path, or a PIL image,
    - a numpy array (H, W, 3) of uint8,
    - a tensor (3, H, W), uint8 or floating point in [0, 1]; the latter is taken in steps of 1/255, as if it came from a file.

    Size and shape don't matter: each is resized and cropped as the run's test images were.

    Args:
        method: whose prompts are loaded.
        cfg: the run's config; record: its ``results.json``.
    """

    def __init__(self, method: Method, cfg: CfgNode, record: Record) -> None:
        self.method, self.cfg, self.record = method.eval().requires_grad_(False), cfg, record
        with silence():
            self.transform = build_transform(cfg, is_train=False)
        with torch.no_grad(), method.autocast():
            # once for all images; None where the text depends on the image
            self.encoded = method.encode()

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], backbone: str | None = None
    ) -> "PromptedClassifier":
        """The classifier that a run has trained, on a GPU if there is one and the run's config allows it.

        Args:
            folder: the run's output folder, with ``results.json`` and, where anything was learned, ``prompt_learner``.
            backbone: name or file of the CLIP, where it is not where the run found it any more; its weights have to be the same.

        Raises:
            UserError: it holds no finished training of this toolbox, or its CLIP is not found or has other weights.
        """
        folder = os.fspath(folder)
        record = read_record(folder)
        trainer_class = find_trainer(record["trainer"])
        cfg = config_of(record, trainer_class)
        if backbone is not None:
            cfg.MODEL.BACKBONE.NAME = backbone
        cfg.freeze()
        trainer_class.method.check(trainer_class.node(cfg), f"TRAINER.{cfg.TRAINER.NAME.upper()}")
        method = untrained(cfg, class_names(folder, record, trainer_class))
        if method.learner is not None:
            load_trained(method, folder, cfg)
        return cls(method, cfg, record)

    @classmethod
    def fit(
        cls,
        images: str | os.PathLike[str] | Sequence[Picture],
        labels: Sequence[str] | None = None,
        trainer: str = "CDC",
        backbone: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        options: Sequence[str] = (),
    ) -> "PromptedClassifier":
        """Trains a classifier on your own images: the run of ``train.py --images``, with its numbers.

        Args:
            images: a folder of class folders; or N images, see above, with their ``labels``.
            labels: N class names; None for a folder.
            trainer, backbone: as ``train.py`` has them; without a backbone it takes what the command does.
            folder: where the run goes, from which ``load`` has it again; by default where the command
                would put it, and for images with labels ``output/fit/<trainer>``.
            options: further arguments of ``train.py``, such as ``("--seed", "2", "OPTIM.MAX_EPOCH", "5")``.

        Raises:
            UserError: the input can't work; see also ``load``.
        """
        try:
            from protocols.command_line import parse_arguments
            from protocols.training import run
        except ImportError as error:
            raise UserError(
                "fit needs the toolbox itself, not only its plug-in: call it in the folder of train.py"
            ) from error
        if labels is not None:
            assert not isinstance(images, (str, os.PathLike))  # a label for each of several images
            folder = os.fspath(folder or f"output/fit/{trainer}")
            images = write_class_folders(list(images), list(labels), f"{folder}-images")
        elif not is_path(images):
            raise UserError("images without labels must be a folder of class folders: give labels")
        arguments = ["--images", os.fspath(images), "--trainer", trainer]
        arguments += ["--backbone", backbone] if backbone else []
        arguments += ["--output-dir", os.fspath(folder)] if folder else []
        return cls.load(run(parse_arguments([*arguments, *options])).output_dir)

    @property
    def background(self) -> str:
        """What transparent pictures are put on: the run's ``INPUT.BACKGROUND``; white where it took its own pictures as they are stored."""
        return self.cfg.INPUT.BACKGROUND or "white"

    @property
    def classnames(self) -> list[str]:
        """The K names that it tells apart."""
        return list(self.method.classnames)

    def with_classes(self, classnames: Iterable[str]) -> "PromptedClassifier":
        """The same prompts for other classes: CLIP's vocabulary is open.

        Args:
            classnames: at least two names.

        Raises:
            UserError: the context is class-specific, so it says nothing of other classes; a name is too long; they are
                no names; or the CLIP can't tell two of them apart.
        """
        names = None if isinstance(classnames, str) else list(classnames)
        if (
            names is None
            or len(names) < 2
            or not all(isinstance(name, str) and name.strip() for name in names)
        ):
            raise UserError(f"the classes are {classnames!r}: give a list of at least two names")
        if self.method.is_class_specific:
            raise UserError(
                f"this run's contexts are class-specific (TRAINER.{self.record['trainer'].upper()}.CSC): they say nothing of "
                "classes that they were not trained for; train without CSC to name others"
            )
        method = rebuilt(self.method, self.cfg, names)
        check_names(method, are_fixed=False)
        return type(self)(method, self.cfg, self.record)

    @torch.no_grad()
    def predict(self, images: Pictures, broken: list[UserError] | None = None) -> Answers:
        """``Answers`` for images, see above: what the run's own test says of them. They are read batch by batch.

        Args:
            broken: collects the errors of unreadable images, which are left out; without it the first one is raised.

        Raises:
            UserError: no image, one that can't be read (the message names it), or an array or tensor that is no image.
        """
        answers, names = [], []
        for batch, batch_names in self.batches(images, broken):
            answer = self.method.answer(batch, self.encoded)
            answer.check_finite()
            answers.append(answer.cpu())
            names += batch_names
        if not answers and broken:
            raise UserError(f"not one of the images can be read; the first: {broken[0]}")
        answer = Prediction.concatenate(answers)
        return Answers(
            classnames=self.classnames,
            images=names,
            labels=[self.classnames[label] for label in answer.probability.argmax(dim=1)],
            probabilities=answer.probability.numpy(),
            uncertainty=answer.uncertainties()["max_probability"].numpy(),
            vacuity=None if answer.vacuity is None else answer.vacuity.numpy(),
            conflict=None if answer.conflict is None else answer.conflict.numpy(),
            votes=None
            if answer.template_probability is None
            else answer.template_probability.transpose(0, 1).numpy(),
        )

    def export(self, folder: str | os.PathLike[str]) -> None:
        """Writes the classifier for programs without this toolbox; see ``export.py``."""
        export(self, folder)

    def batches(
        self, images: Pictures, broken: list[UserError] | None = None
    ) -> Iterator[tuple[Tensor, list[str | None]]]:
        """Yields (1, B, 3, H, W) on the device and B names, as many images at a time as the run's tests take; for ``broken`` see ``predict``.

        Raises:
            UserError: see ``predict``.
        """

        def read(image: Picture) -> Tensor | UserError:
            try:
                return transformed(image, self.background, self.transform)
            except UserError as error:
                if broken is None:
                    raise
                return error

        images, size = iter(one_by_one(images)), self.cfg.DATALOADER.TEST.BATCH_SIZE
        batch = list(islice(images, size))
        if not batch:
            raise UserError("there is no image to look at")
        with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without Python's lock
            while batch:
                decoded = list(zip(batch, pool.map(read, batch)))
                if broken is not None:
                    broken += [pixels for _, pixels in decoded if isinstance(pixels, UserError)]
                sound = [(image, pixels) for image, pixels in decoded if isinstance(pixels, Tensor)]
                if sound:
                    pixels = torch.stack([pixels for _, pixels in sound])  # (B, 3, H, W)
                    yield (
                        pixels.to(self.method.device)[None],
                        [os.fspath(image) if is_path(image) else None for image, _ in sound],
                    )
                batch = list(islice(images, size))

"""A trained run as a classifier of images: no data set, no training, a few lines in anybody's program.

>>> from trainers import PromptedClassifier  # installed: from cdc_trainers
>>> classifier = PromptedClassifier.load("output/my_run/seed1")
>>> answers = classifier.predict(["cat.jpg", "dog.png"])
>>> answers.probabilities.shape == (2, len(classifier.classnames))
True
"""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor
from yacs.config import CfgNode

from ..build import settings_of
from ..classnames import check_names
from ..common.console import counted
from ..common.errors import UserError
from ..common.record_file import FILE_NAME, Record, read_record, shown_name
from ..data.pictures import (
    Picture,
    Pictures,
    is_path,
    one_by_one,
    transformed,
    write_class_folders,
)
from ..data.transforms import pixels_of_test
from ..engine.checkpoint import MODEL_NAME, load_trained
from ..evaluation.prediction import Prediction
from ..method import Method
from .export import export
from .saved_run import config_of, find_method, method_of

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
        uncertainty: (N,) in [0, 1]: 1 − the largest probability, which ranks mistakes better than
            vacuity (docs/uncertainty.md).
        vacuity: (N,) in (0, 1], the uncertainty mass of the fused opinion; None where the method
            learns no evidence.
        conflict: (N,) in [0, 1), the mass of the templates' joint belief on different classes; None
            likewise.
        voters: V names of those whose votes are fused: the templates, and after them the image
            classifier where there is one; none where the method has no templates to fuse.
        votes: (N, V, K), the probabilities of each vote alone; None where there are none.
        vote_weights: (V,), the share that each has in the answers; they sum to one. None likewise.
        vote_vacuity: (N, V) in (0, 1], the uncertainty mass of each vote's own opinion, which counts
            the less the larger it is; None where the method learns no evidence.
    """

    classnames: list[str]
    images: list[str | None]
    labels: list[str]
    probabilities: numpy.ndarray
    uncertainty: numpy.ndarray
    vacuity: numpy.ndarray | None = None
    conflict: numpy.ndarray | None = None
    voters: Sequence[str] = ()
    votes: numpy.ndarray | None = None
    vote_weights: numpy.ndarray | None = None
    vote_vacuity: numpy.ndarray | None = None

    def to_pandas(self) -> "pandas.DataFrame":
        """A ``DataFrame``, one row an image: image, label, probability, uncertainty, where there
        are any vacuity and conflict, ``template_1`` … and ``image_classifier``, the class that each
        vote is for, and ``template_1_vacuity`` …, how much each leaves open.
        """
        import pandas

        columns = {
            "image": self.images,
            "label": self.labels,
            "probability": self.probabilities.max(axis=1),
            "uncertainty": self.uncertainty,
        }
        if self.vacuity is not None:
            columns.update(vacuity=self.vacuity, conflict=self.conflict)
        names = [voter.replace(" ", "_") for voter in self.voters]
        if self.votes is not None:
            for name, vote in zip(names, self.votes.argmax(axis=2).T):
                columns[name] = [self.classnames[label] for label in vote]
        if self.vote_vacuity is not None:
            for name, vacuity in zip(names, self.vote_vacuity.T):
                columns[f"{name}_vacuity"] = vacuity
        return pandas.DataFrame(columns)


class PromptedClassifier:
    """A CLIP under trained prompts, ready to label images; from a run by ``load``, for other
    classes by ``with_classes``.

    Images may be given as one or as many (a list, any iterable, or an array or tensor with one
    dimension more):

    - a path, or a PIL image,
    - a numpy array (H, W, 3) of uint8,
    - a tensor (3, H, W), uint8 or floating point in [0, 1]; the latter is taken in steps of 1/255,
      as if it came from a file.

    Size and shape don't matter: each is resized and cropped as the run's test images were.

    Args:
        method: whose prompts are loaded.
        cfg: the run's config; record: its ``results.json``.
    """

    def __init__(self, method: Method, cfg: CfgNode, record: Record) -> None:
        self.method, self.cfg, self.record = method.eval().requires_grad_(False), cfg, record
        self.transform = pixels_of_test(cfg.INPUT)
        with torch.no_grad(), method.autocast():
            # once for all images; None where the text depends on the image
            self.encoded = method.encode()

    def __repr__(self) -> str:
        record = self.record
        classes = counted(len(self.classnames), "class")
        run = f"{record['trainer']} on {shown_name(record)}, seed {record['seed']}"
        return f"<{type(self).__name__}: {run}, {self.cfg.MODEL.BACKBONE.NAME}, {classes}>"

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], backbone: str | None = None
    ) -> "PromptedClassifier":
        """The classifier that a run has trained, on a GPU if there is one and the run's config
        allows it.

        Args:
            folder: the run's output folder, with ``results.json`` and, where anything was learned,
                ``prompt_learner``.
            backbone: name or file of the CLIP, where it is not where the run found it any more; its
                weights have to be the same.

        Raises:
            UserError: it holds no finished training of this toolbox or the prompts of another one,
                or its CLIP is not found or has other weights.
        """
        path = f"{folder}/{FILE_NAME}"
        if not os.path.isfile(path):
            raise UserError(
                f"{folder} holds no finished run, there is no {FILE_NAME}: give the --output-dir of a training that has ended"
            )
        record = read_record(path)
        kind = find_method(record["trainer"])
        cfg = config_of(record, kind)
        if backbone is not None:
            cfg.MODEL.BACKBONE.NAME = backbone
        cfg.freeze()
        kind.check(settings_of(kind, cfg), f"TRAINER.{kind.name().upper()}")
        prompts = f"{folder}/{MODEL_NAME}"
        if kind.learns and not os.path.isdir(prompts):
            raise UserError(
                f"{folder} holds no prompts: it tested those of another run, give the folder of that training"
            )
        method = method_of(cfg, record["classnames"])
        if method.learner is not None:
            load_trained(method, os.fspath(folder), cfg)
        if method.prompts_hash() != record["prompts_hash"]:
            raise UserError(
                f"{prompts} holds other prompts than those that {path} tells of: put the run's own there again, or train it again"
            )
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
            trainer, backbone: as ``train.py`` has them; without a backbone it takes what the
                command does.
            folder: where the run goes, from which ``load`` has it again; by default where the command
                would put it, and for images with labels ``output/fit/<trainer>``.
            options: further arguments of ``train.py``, such as ``("--seed", "2", "OPTIM.MAX_EPOCH",
                "5")``.

        Raises:
            UserError: the input can't work; see also ``load``.
            ModuleNotFoundError: the toolbox itself, the folder of ``train.py``, can't be imported,
                only its plug-in.
        """
        from protocols.command_line import parse_arguments
        from protocols.training import run

        if labels is not None:
            folder = os.fspath(folder or f"output/fit/{trainer}")
            images = write_class_folders(list(one_by_one(images)), labels, f"{folder}-images")
        if not is_path(images):
            raise UserError("images without labels must be a folder of class folders: give labels")
        given = {"images": images, "trainer": trainer, "backbone": backbone, "output-dir": folder}
        flags = [f"--{flag}={os.fspath(value)}" for flag, value in given.items() if value]
        try:
            finished = run(parse_arguments([*flags, *options]))
        except UserError:
            if labels is not None:  # so that the corrected call finds its place free
                shutil.rmtree(images)
            raise
        return cls.load(finished.output_dir)

    @property
    def background(self) -> str:
        """What transparent pictures are put on: the run's ``INPUT.BACKGROUND``; white where it took
        its own pictures as they are stored."""
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
            UserError: the context is class-specific, so it says nothing of other classes; a name is
                too long, or nothing; or the CLIP can't tell two of them apart.
        """
        names = list(classnames)
        if isinstance(classnames, str) or len(names) < 2:
            raise UserError(f"the classes are {names}: give a list of at least two names")
        if self.method.is_class_specific:
            raise UserError(
                f"this run's contexts are class-specific (TRAINER.{self.record['trainer'].upper()}.CSC): they say nothing of "
                "classes that they were not trained for; train without CSC to name others"
            )
        method = self.method.for_classes(names)
        check_names(method.backbone, names, are_fixed=False)
        return type(self)(method, self.cfg, self.record)

    def predict(
        self,
        images: Pictures,
        broken: list[UserError] | None = None,
        after_batch: Callable[[int], object] | None = None,
    ) -> Answers:
        """``Answers`` for images, see above: what the run's own test says of them. They are read
        batch by batch.

        Args:
            broken: collects the errors of unreadable images, which are left out; without it the
                first one is raised.
            after_batch: called after each batch with the number of its images, the unreadable ones
                included.

        Raises:
            UserError: no image, one that can't be read (the message names it), or an array or
                tensor that is no image.
        """
        answer, names = self.prediction(images, broken, after_batch)
        voters: list[str] = []
        votes: list[Tensor] = []
        vacuities: list[Tensor] = []
        if answer.template_probability is not None:
            voters += [f"template {m}" for m in range(1, 1 + len(answer.template_probability))]
            votes += [*answer.template_probability]
        if answer.template_vacuity is not None:
            vacuities += [*answer.template_vacuity]
        if answer.image_probability is not None and answer.image_vacuity is not None:
            voters.append("image classifier")
            votes.append(answer.image_probability)
            vacuities.append(answer.image_vacuity)
        values = {name: value.numpy() for name, value in answer.known().items()}
        return Answers(
            classnames=self.classnames,
            images=names,
            labels=[self.classnames[label] for label in answer.probability.argmax(dim=1)],
            probabilities=values["probability"],
            uncertainty=answer.uncertainties()["max_probability"].numpy(),
            vacuity=values.get("vacuity"),
            conflict=values.get("conflict"),
            voters=voters,
            votes=torch.stack(votes, dim=1).numpy() if votes else None,  # (N, V, K)
            vote_weights=values.get("vote_weight"),
            vote_vacuity=torch.stack(vacuities, dim=1).numpy() if vacuities else None,  # (N, V)
        )

    @torch.no_grad()
    def prediction(
        self,
        images: Pictures,
        broken: list[UserError] | None = None,
        after_batch: Callable[[int], object] | None = None,
    ) -> tuple[Prediction, list[str | None]]:
        """The method's own ``Prediction`` for N images, on the CPU, and their N names; see
        ``predict``."""
        answers, names = [], []
        images, size = iter(one_by_one(images)), self.cfg.DATALOADER.TEST.BATCH_SIZE
        with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without Python's lock
            while batch := list(islice(images, size)):
                pixels = []
                for image, result in zip(batch, pool.map(self.read, batch)):
                    if isinstance(result, Tensor):
                        pixels.append(result)
                        names.append(os.fspath(image) if is_path(image) else None)
                    elif broken is None:
                        raise result
                    else:
                        broken.append(result)
                if pixels:
                    shown = torch.stack(pixels).to(self.method.device)  # (B, 3, H, W)
                    answer = self.method.answer(shown[None], self.encoded)
                    answer.check_finite()
                    answers.append(answer.cpu())
                if after_batch is not None:
                    after_batch(len(batch))
        if not answers:
            first = f"not one can be read; the first: {broken[0]}" if broken else "there is none"
            raise UserError(f"there is no image to look at: {first}")
        return Prediction.concatenate(answers), names

    def read(self, image: Picture) -> Tensor | UserError:
        """Its pixels (3, H, W) as the run's test takes them, or why it can't be read."""
        try:
            return transformed(image, self.background, self.transform)
        except UserError as error:
            return error

    def export(self, folder: str | os.PathLike[str]) -> None:
        """Writes the classifier for programs without this toolbox; see ``export.py``.

        Everything is computed in fp32 on the CPU, whatever the run's precision.
        """
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.USE_CUDA = False
        cfg.TRAINER[cfg.TRAINER.NAME.upper()].PREC = "fp32"
        cfg.freeze()
        method = method_of(cfg, self.classnames)
        if method.learner is not None:
            method.load(self.method.learner.state_dict(), self.classnames)
        export(type(self)(method, cfg, self.record), folder)

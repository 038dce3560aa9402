"""A trained run as a classifier of images: no data set, no training, a few lines in anybody's program.

>>> from labelling import PromptedClassifier  # installed: from cdc_labelling
>>> classifier = PromptedClassifier.load("output/my_run/seed1")
>>> answers = classifier.predict(["cat.jpg", "dog.png"])
>>> answers.probabilities.shape == (2, len(classifier.classnames))
True
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy
import torch
import torch.nn.functional as F
from numpy.typing import DTypeLike
from torch import Tensor
from yacs.config import CfgNode

from trainers.common.console import counted, first_few
from trainers.common.errors import UserError, nearest
from trainers.common.files import file_hash
from trainers.common.fingerprints import note_on_trained, start_of
from trainers.common.image_files import Seen, look_through
from trainers.common.recipes import SHOTS
from trainers.common.record_file import Record, shown_name
from trainers.data.random_state import restore_rng_state, rng_state
from trainers.data.transforms import least_side, pixels_of_test
from trainers.engine.saved_run import load_run, method_of
from trainers.evaluation.figures import effective_number, voters, wilson
from trainers.evaluation.prediction import Prediction, measure
from trainers.method import Method
from trainers.texts.classnames import check_names

from .export import export
from .fit import fit_folder
from .folders.look_alikes import look_alikes
from .folders.own_images import labelled_in
from .folders.pictures import (
    Labelled,
    Picture,
    Pictures,
    check_label,
    is_path,
    pictures_and_labels,
    place_of,
    transformed,
    write_list,
)
from .official_prompts import BACKBONE, official_classifier
from .reading import ReadImages, batches_of, read_images
from .request import Text, ask, checked_names, text
from .several.classifier import SeveralClassifier
from .several.fit import fit_several
from .several.python import wants_several, write_sets
from .threshold import is_several
from .zero_shot import zero_shot_classifier

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)


@dataclass
class Answers:
    """What a classifier says about N images over K classes; numpy arrays in fp32.

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
        voters: M names of the templates whose votes are fused; none where the method has no
            templates to fuse.
        votes: (N, M, K), the probabilities of each vote alone; None where there are none.
        vote_weights: (M,), the share that each has in the answers; they sum to one. None likewise.
        vote_vacuity: (N, M) in (0, 1], the uncertainty mass of each vote's own opinion, which counts
            the less the larger it is; None where the method learns no evidence.
        note: in which other way than the trained classes alone these are answered; "" where in none.
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
    note: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> numpy.ndarray:
        """The labels (N,), as scikit-learn's functions take them of what ``predict`` returns."""
        return numpy.array(self.labels, dtype)

    def to_pandas(self) -> "pandas.DataFrame":
        """A ``DataFrame``, one row per image: image, label, probability, uncertainty, where there
        are any vacuity and conflict, ``template_1`` …, the class that each vote is for, and ``template_1_vacuity`` …, how much each leaves open.
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


@dataclass
class Evaluation:
    """How good the answers to N labelled images over K classes are; shares in [0, 1].

    Attributes:
        images: N.
        accuracy: share of right answers; interval: ends of its 95 % interval, see ``wilson``; files of a
            class that look alike are worth fewer, see ``effective_number``.
        macro_f1: mean of F1 over the classes that occur.
        ece: expected calibration error over 15 bins of equal width.
        confusion: (K, K) numbers of images, a row for each true class, a column for each answer, in
            the order of ``classes_``.
        trained_on: how many of the images the classifier was trained on, byte for byte; 0 where it does
            not know.
        answers: to the images.
    """

    images: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    ece: float
    confusion: numpy.ndarray
    trained_on: int
    answers: Answers = field(repr=False)


def looks_at(pictures: Sequence[Picture]) -> list[Seen | None]:
    """What is seen of each picture; None of what is no file."""
    files = [os.fspath(picture) for picture in pictures if is_path(picture)]
    looks = iter(look_through(files))
    return [next(looks) if is_path(picture) else None for picture in pictures]


def alike(looks: Sequence[Seen | None], labels: numpy.ndarray) -> numpy.ndarray:
    """The number (N,) of the group of each picture: files of a class that look alike are one; what is no
    file is alone. looks: see ``looks_at``; labels: (N,)."""
    return numpy.array(
        look_alikes([look and look.coarse for look in looks], labels.tolist()).groups
    )


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
        trained_on: the files of its training images, see ``fingerprints.start_of``.
    """

    def __init__(
        self,
        method: Method,
        cfg: CfgNode,
        record: Record,
        trained_on: frozenset[int] = frozenset(),
    ) -> None:
        self.method = method.eval().requires_grad_(False)
        self.cfg = cfg
        self.record = record
        self.trained_on = trained_on
        self.transform = pixels_of_test(cfg.INPUT)
        with torch.no_grad(), method.towers.autocast():
            # once for all images; None where the text depends on the image
            self.encoded = method.encode()

    def __repr__(self) -> str:
        record = self.record
        classes = counted(len(self.classnames), "class")
        run = f"{record['trainer']} on {shown_name(record)}, seed {record['seed']}"
        return f"<{type(self).__name__}: {run}, {self.cfg.MODEL.BACKBONE.NAME}, {classes}>"

    @classmethod
    def load(cls, folder: Text, backbone: Text | None = None) -> "PromptedClassifier":
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
        if is_several(os.fspath(folder)):
            raise UserError(
                f"{os.fspath(folder)} gives several labels per picture: load it with SeveralClassifier.load"
            )
        run = load_run(os.fspath(folder), text("the backbone", backbone))
        return cls(run.method, run.cfg, run.record, run.images)

    @classmethod
    def from_official(
        cls,
        checkpoint: Text,
        trainer: str,
        classnames: Iterable[str],
        backbone: Text = BACKBONE,
        settings: Mapping[str, object] | None = None,
    ) -> "PromptedClassifier":
        """The classifier of prompts that a method's authors released, for any class names.

        Numbers of tokens and layers follow from the checkpoint, all else from the trainer's recipe
        for the CLIP.

        Args:
            checkpoint: the file, such as ``model.pth.tar-50``.
            trainer: CoOp, CoCoOp, KgCoOp, MaPLe or PromptSRC.
            classnames: at least two names; of class-specific contexts those that were trained, in
                any order.
            backbone: name or file of the CLIP that it was trained for.
            settings: KEY → value over the recipe's, such as
                ``{"TRAINER.COOP.CLASS_TOKEN_POSITION": "middle"}``, of which a checkpoint says
                nothing.

        Raises:
            UserError: the file is no such checkpoint, or is of another trainer, CLIP or shape, or has
                class-specific contexts of other names.
        """
        return cls(*official_classifier(checkpoint, trainer, classnames, backbone, settings))

    @classmethod
    def zero_shot(
        cls, classnames: Iterable[str], backbone: Text | None = None
    ) -> "PromptedClassifier":
        """A CLIP as it is, by class names alone, with the sentences of zero-shot CLIP (``ZeroshotCLIP2``).

        Nothing was tested, so nothing is promised of its answers.

        Args:
            classnames: at least two names; backbone: name or file of a CLIP; without one that of
                ``fit``.

        Raises:
            UserError: the names don't work, or the CLIP is not found.
        """
        method, cfg, record, why = zero_shot_classifier(classnames, backbone)
        if why:
            log.info("%s", why)
        return cls(method, cfg, record)

    @classmethod
    def fit(
        cls,
        images: str | os.PathLike[str] | Labelled,
        labels: Sequence[object] | None = None,
        *,
        trainer: str | None = None,
        backbone: str | os.PathLike[str] | None = None,
        folder: str | os.PathLike[str] | None = None,
        recipe: str | os.PathLike[str] | None = None,
        shots: int = SHOTS,
        seed: int = 1,
        group_by: str | None = None,
        settings: Mapping[str, object] | None = None,
        several: bool | None = None,
        refit: bool = False,
    ) -> "PromptedClassifier | SeveralClassifier":
        """Trains a classifier on your own images, with the numbers of ``train.py --images``.

        A part of them is kept for a test, another for thresholds; a fit that was stopped goes on by
        the same call, and one that is done is loaded. The program's random generators are left as
        they were.

        Args:
            images: a folder of class folders, or of ``train`` and ``test``; or a file that names
                images and labels, CSV or Label Studio's JSON export; or N images, see above,
                with their ``labels``; or a pandas ``DataFrame`` with the columns ``path`` and
                ``label``; or a torch data set of (image, label), whose labels are numbered by its
                ``classes``, if it has any.
            labels: N class names.
            trainer: name of a method, see ``list_trainers``; without one ``LinearProbe``, a
                regression on image features beside the texts.
            backbone: name or file of a CLIP; without one ViT-B/16 on a GPU, else ViT-B/32, and where
                their weights can't be had the tiny one that comes with the package.
            folder: where the run goes, from which ``load`` has it again; images that no folder or file
                names are listed beside it, in ``<folder>-images``, which also gets those that are no
                files. By default it is ``output/<images>/<trainer>/seed<seed>`` or, without a folder
                or file of images, ``output/fit/<trainer>``; of no named trainer without ``<trainer>``.
            recipe: name of one of the trainer's recipes, or a file; without one that for the CLIP.
            shots: training images per class, at most; −1: all.
            seed: of the sample and the training, 0 or more.
            group_by: which images belong together, such as those of a patient or a film: ``"folder"``, the
                one below the class folder that holds them, or a regular expression for the files' names
                with one group, such as ``r"(.+)_[0-9]+"``; without one those that look alike.
            settings: KEY → value over the recipe's, such as ``{"OPTIM.MAX_EPOCH": 5}``.
            several: whether a picture may have several labels, or none; None: if the file says it, or
                ``labels`` are sets of names. Then a ``SeveralClassifier`` is returned.
            refit: trains once more on all images, those of the test too, into ``<folder>/refit``, which
                is returned: of trainers that learn in epochs.

        Raises:
            UserError: the input can't work; see also ``load``.
        """
        are_sets = wants_several(images, labels, several)
        root = images
        made = ""  # folder of what is written of images that are no folder
        if not is_path(images):
            by_name = os.path.join("output", "fit", text("the trainer", trainer))
            folder = os.path.normpath(text("the output folder", folder) or by_name)
            made = os.path.abspath(f"{folder}-images")
            root = os.path.join(made, f"{os.path.basename(made)}.csv")
        asked = ask(
            cast(Text, root),
            trainer=trainer,
            backbone=backbone,
            recipe=recipe,
            folder=folder,
            shots=shots,
            seed=seed,
            group_by=group_by,
            settings=settings,
            refit=refit,
        )
        is_new = bool(made) and not os.path.exists(made)
        if not is_path(images):
            write = write_sets if are_sets else write_list
            write(*pictures_and_labels(images, labels), made)
        state = rng_state()
        try:
            if are_sets:
                fit_several(asked)
                return SeveralClassifier.load(asked.folder)
            return cls.load(fit_folder(asked))
        except UserError:
            if is_new:  # so that the corrected call finds its place free
                shutil.rmtree(made)
            raise
        finally:
            restore_rng_state(state)

    @property
    def background(self) -> str:
        """What transparent pictures are put on: the run's ``INPUT.BACKGROUND``; white where it took
        its own pictures as they are stored."""
        return self.cfg.INPUT.BACKGROUND or "white"

    @property
    def classnames(self) -> list[str]:
        """The K names that it tells apart."""
        return list(self.method.classnames)

    @property
    def classes_(self) -> numpy.ndarray:
        """The K names as an array, in the order of the columns of ``predict_proba``."""
        return numpy.array(self.classnames)

    def with_classes(self, classnames: Iterable[str]) -> "PromptedClassifier":
        """The trained run for other classes: CLIP's vocabulary is open.

        Another order of the trained names changes nothing but the order, some of them are told apart
        as they were trained, and names that were added can be taken away again. The ``note`` of the
        answers says how a list with added names is answered, where in another way.

        Args:
            classnames: at least two names.

        Raises:
            UserError: the context is class-specific, so it says nothing of added classes; a name is
                too long, or nothing; or the CLIP can't tell two of them apart.
        """
        names = checked_names(classnames)
        trained = self.method.trained.classnames
        if not self.method.can_answer(names, trained):
            raise UserError(
                f"this run's contexts are class-specific (TRAINER.{self.record['trainer'].upper()}.CSC): they say nothing of "
                "classes that they were not trained for; train without CSC to name others"
            )
        other = type(self)(self.method.for_classes(names), self.cfg, self.record, self.trained_on)
        texts = None if other.encoded is None else other.encoded[0]  # (M, K, E)
        # pictures tell trained classes apart where their texts don't
        are_distinct = len({*names}) == len(names)
        are_seen = self.method.tells_by_images and are_distinct and {*names} <= {*trained}
        backbone = other.method.backbone
        check_names(backbone, names, are_fixed=False, texts=texts, are_seen=are_seen)
        return other

    def predict(self, images: Pictures, broken: list[UserError] | None = None) -> Answers:
        """``Answers`` for images, see above: what the run's own test says of them. They are read
        batch by batch.

        Args:
            broken: collects the errors of unreadable images, which are left out; without it the
                first one is raised.

        Raises:
            UserError: no image, one that can't be read (the message names it), or an array or
                tensor that is no image.
        """
        return self.answers(*self.prediction(images, broken))

    def predict_batches(
        self, images: Pictures, broken: dict[int, UserError] | None = None
    ) -> Iterator[Answers]:
        """``Answers`` batch by batch, for more images than memory holds: a batch is computed while
        the next ones are read. Batches without a readable image are left out.

        Args:
            broken: collects the errors of unreadable images by their places among all, from 0;
                without it the first one is raised.

        Raises:
            UserError: see ``predict``; no image is no error.
        """
        for prediction, names in self.predictions(images, broken):
            yield self.answers(prediction, names)

    def answers(self, answer: Prediction, names: list[str | None]) -> Answers:
        """A ``Prediction`` of N images, with their names, as ``Answers``."""
        values = {name: value.numpy() for name, value in answer.known().items()}
        classnames = self.classnames
        votes = values.get("votes")  # (M, N, K)
        vacuities = values.get("vote_vacuity")  # (M, N)
        return Answers(
            classnames=classnames,
            images=names,
            labels=[classnames[label] for label in answer.probability.argmax(dim=1).tolist()],
            probabilities=values["probability"],
            uncertainty=answer.uncertainties()["max_probability"].numpy(),
            vacuity=values.get("vacuity"),
            conflict=values.get("conflict"),
            voters=() if votes is None else voters(len(votes)),
            votes=None if votes is None else votes.swapaxes(0, 1),
            vote_weights=values.get("vote_weight"),
            vote_vacuity=None if vacuities is None else vacuities.T,
            note=self.method.note,
        )

    def predict_proba(self, images: Pictures) -> numpy.ndarray:
        """Probabilities (N, K) of the classes in the order of ``classes_``; see ``predict``."""
        return self.predict(images).probabilities

    def features(self, images: Pictures) -> numpy.ndarray:
        """Features (N, E) of images under the learned prompts, of length one, in fp32, for a search or a map.

        Where each of M templates prompts the images, they are the mean over the templates,
        normalised. Where only the text is prompted, they are CLIP's own.

        Raises:
            UserError: see ``predict``.
        """
        parts = []
        with torch.no_grad():
            for shown, _ in self.batches(images, None):
                there = shown.to(self.method.device)
                of_templates = self.method(there[None], self.encoded).image_features
                # (M or 1, B, E) → (B, E)
                parts.append(F.normalize(of_templates.mean(dim=0), dim=-1).float().cpu())
        if not parts:
            raise UserError("there is no image to look at: give at least one")
        return torch.cat(parts).numpy()

    def evaluate(
        self, images: str | os.PathLike[str] | Labelled, labels: Sequence[object] | None = None
    ) -> Evaluation:
        """How good the answers to labelled images are; warns of those that were trained on.

        Args:
            images, labels: in any form that ``fit`` takes. Of a folder all images count, or those of
                its ``test``, if it has one; class folders are named as in training.

        Raises:
            UserError: see ``predict``; or a label is none of ``classes_``.
        """
        pictures, names = (
            labelled_in(os.fspath(images))
            if is_path(images)
            else pictures_and_labels(images, labels)
        )
        known = {name: label for label, name in enumerate(self.classnames)}
        for name in names:
            if check_label(name) not in known:
                raise UserError(
                    f"the label {name!r} is none of the classes{nearest(str(name), known)}: they are "
                    f"{first_few(self.classnames)}"
                )
        if len(pictures) != len(names):
            raise UserError(
                f"there are {len(pictures)} images and {len(names)} labels: give one for each"
            )
        answers = self.predict(pictures)
        truth = numpy.array([known[check_label(name)] for name in names])
        answered = answers.probabilities.argmax(axis=1)
        accuracy = float((answered == truth).mean())
        looks = looks_at(pictures)
        independent = effective_number(answered == truth, alike(looks, truth))
        confusion = numpy.zeros((len(known), len(known)), dtype=int)
        numpy.add.at(confusion, (truth, answered), 1)
        probabilities = torch.from_numpy(answers.probabilities)
        metrics = measure(Prediction(probabilities), torch.from_numpy(truth), self.classnames)
        seen = self.number_seen(pictures, looks)
        if note := note_on_trained(seen, len(names)):
            log.warning("%s", note)
        return Evaluation(
            images=len(names),
            accuracy=accuracy,
            interval=wilson(accuracy * independent, independent),
            macro_f1=metrics["macro_f1"] / 100,
            ece=metrics["ece"] / 100,
            confusion=confusion,
            trained_on=seen,
            answers=answers,
        )

    def number_seen(self, pictures: Sequence[Picture], looks: Sequence[Seen | None]) -> int:
        """How many pictures are files that it was trained on, or would be if ``fit`` wrote them.

        looks: see ``looks_at``.
        """
        if not self.trained_on:
            return 0
        number = 0
        with tempfile.TemporaryDirectory() as folder:
            for picture, look in zip(pictures, looks):
                if look is None:
                    name = place_of(picture, "picture.png", folder)
                    digest = bytes.fromhex(file_hash(f"{folder}/{name}"))
                else:
                    digest = look.digest
                number += start_of(digest) in self.trained_on
        return number

    def prediction(
        self, images: Pictures, broken: list[UserError] | None = None
    ) -> tuple[Prediction, list[str | None]]:
        """The method's own ``Prediction`` for N images, on the CPU, and their N names; see
        ``predict``."""
        unreadable: dict[int, UserError] | None = None if broken is None else {}
        answers = []
        names = []
        for answer, its_names in self.predictions(images, unreadable):
            answers.append(answer)
            names += its_names
        errors = list((unreadable or {}).values())
        if not answers:
            first = f"not one can be read; the first: {errors[0]}" if errors else "there is none"
            raise UserError(f"there is no image to look at: {first}")
        if broken is not None:
            broken += errors
        return Prediction.concatenate(answers), names

    def predictions(
        self, images: Pictures, broken: dict[int, UserError] | None
    ) -> Iterator[tuple[Prediction, list[str | None]]]:
        """The ``Prediction`` for each batch, on the CPU, and its images' names; see
        ``predict_batches``."""
        with closing(self.batches(images, broken)) as batches:
            for shown, names in batches:
                yield self.predicted(shown), names

    @torch.no_grad()
    def predicted(self, shown: Tensor) -> Prediction:
        """The ``Prediction``, on the CPU, for images as the method takes them, (B, 3, H, W)."""
        answer = self.method.answer(shown.to(self.method.device)[None], self.encoded)
        answer.check_finite()
        return answer.cpu()

    def batches(
        self, images: Pictures, broken: dict[int, UserError] | None
    ) -> Generator[tuple[Tensor, list[str | None]], None, None]:
        """Images as ``read_batch`` has them, (B, 3, H, W), and their names, while the next ones are read;
        broken: see ``predict_batches``."""
        return batches_of(images, self.cfg.DATALOADER.TEST.BATCH_SIZE, self.read_batch, broken)

    def read_batch(self, pool: ThreadPoolExecutor, images: list[Picture]) -> ReadImages:
        """Images as the method takes them, read by the threads of a pool."""
        return read_images(pool, images, self.read)

    def read(self, image: Picture) -> Tensor | UserError:
        """Its pixels (3, H, W) as the run's test takes them, or why it can't be read."""
        try:
            return transformed(image, self.background, self.transform, least_side(self.cfg.INPUT))
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
            method.load(self.method.trained.state, self.method.trained.classnames)
        export(type(self)(method, cfg, self.record), folder)

"""``ClipClassifier``: ``PromptedClassifier.fit`` as an estimator of scikit-learn's, for its
``cross_val_score``, ``GridSearchCV`` and pipelines.

>>> from PIL import Image
>>> from sklearn.model_selection import cross_val_score
>>> images = [Image.new("RGB", (32, 32), (level, 0, 0)) for level in range(160, 256)]
>>> images += [Image.new("RGB", (32, 32), (0, 0, level)) for level in range(160, 256)]
>>> names = ["red"] * 96 + ["blue"] * 96
>>> classifier = ClipClassifier(trainer="GDA", backbone="tiny")
>>> cross_val_score(classifier, images, names, cv=2).shape
(2,)
"""

import os
import tempfile
from collections.abc import Mapping, Sequence

import numpy
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from trainers.common.errors import UserError
from trainers.common.recipes import SHOTS

from .classifier import PromptedClassifier
from .pictures import Pictures


class ClipClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """A classifier of images that scikit-learn can clone, fit and score.

    Images are given as an array or list of N paths, or of any that ``PromptedClassifier`` takes. Of
    those to fit, a part is kept aside as in every training (``PromptedClassifier.fit``); of the
    run nothing is kept but the classifier.

    Args:
        trainer, backbone, recipe, shots, seed, settings: as in ``PromptedClassifier.fit``.
        classnames: what the labels 0, 1 … are called, in the order of the alphabet, where scikit-learn
            itself numbers the classes before it fits: ``cross_val_predict`` of probabilities,
            ``StackingClassifier``, ``CalibratedClassifierCV(ensemble=False)``.

    Attributes:
        classifier_: the ``PromptedClassifier`` that was trained.
        classes_: (K,) the classes as ``fit`` was given them, names or numbers, in the order of the
            columns of ``predict_proba``.
        columns_: (K,) their places among those of ``classifier_``.
    """

    def __init__(
        self,
        trainer: str | None = None,
        backbone: str | None = None,
        *,
        recipe: str | os.PathLike[str] | None = None,
        shots: int = SHOTS,
        seed: int = 1,
        settings: Mapping[str, object] | None = None,
        classnames: Sequence[str] | None = None,
    ) -> None:
        self.trainer = trainer
        self.backbone = backbone
        self.recipe = recipe
        self.shots = shots
        self.seed = seed
        self.settings = settings
        self.classnames = classnames

    def fit(self, images: Pictures, labels: Sequence[object]) -> "ClipClassifier":
        """Trains on N images and their N class names, or numbers of ``classnames``: CLIP reads the names.

        Raises:
            UserError: a number has no name; or as ``PromptedClassifier.fit``.
        """
        given = numpy.asarray(labels)
        is_numbered = given.dtype.kind in "iu"
        names = self.named(given) if is_numbered else labels
        known = self.get_params()
        del known["classnames"]
        with tempfile.TemporaryDirectory() as folder:
            fitted = PromptedClassifier.fit(
                images, names, folder=os.path.join(folder, "run"), multi_label=False, **known
            )
        self.classifier_ = fitted
        self.classes_ = self.classifier_.classes_
        self.columns_ = numpy.arange(len(self.classes_))
        if is_numbered:
            self.classes_ = numpy.unique(given)
            columns = self.classifier_.classnames
            self.columns_ = numpy.array([columns.index(name) for name in self.named(self.classes_)])
        return self

    def named(self, numbers: numpy.ndarray) -> list[str]:
        """The names of N classes that are given as numbers.

        Raises:
            UserError: one has no name.
        """
        names = [name.strip() for name in self.classnames or ()]
        if not 0 <= numbers.min(initial=0) <= numbers.max(initial=0) < len(names):
            raise UserError(
                f"the labels are numbers up to {numbers.max(initial=0)}, as scikit-learn makes them for probabilities, and "
                f"{len(names)} have a name: give ClipClassifier classnames=sorted(set(names))"
            )
        return [names[number] for number in numbers.tolist()]

    def predict(self, images: Pictures) -> numpy.ndarray:
        """The most probable class of each image, (N,), one of ``classes_``."""
        places = self.predict_proba(images).argmax(axis=1)
        answered: numpy.ndarray = self.classes_[places]
        return answered

    def predict_proba(self, images: Pictures) -> numpy.ndarray:
        """Probabilities (N, K) of the classes in the order of ``classes_``."""
        check_is_fitted(self)
        return self.classifier_.predict_proba(images)[:, self.columns_]

"""What Tip-Adapter, GDA and the linear probe share: classifiers of CLIP's own image features."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ..evaluation.prediction import Prediction, Scores
from ..evaluation.uncertainty import fit_temperature
from ..maths.threads import one_thread
from ..method import Batches, Encoded, Method, ParameterGroups, TrainingImages
from ..texts.templates import SELECTED_TEMPLATES
from . import candidates
from .candidates import Known

Numbers = tuple[float, ...]  # a setting: what a method takes of held-out images
CHOICES: list[object] = ["accuracy", "likelihood"]  # what settings are chosen by, ``CHOICE``
# those under which settings are compared; between them the likelihood is taken for a parabola
TEMPERATURES = [1.5**power for power in range(-6, 13)]


class HeldOut:
    """Images that a method was not filled with.

    Args:
        under: a function that maps a setting to their logits (N, K); labels: (N,).
        note: is called before each of its calls.
    """

    def __init__(
        self,
        under: Callable[[Numbers], Tensor],
        labels: Tensor,
        note: Callable[[], object] = lambda: None,
    ) -> None:
        self.under = under
        self.labels = labels
        self.note = note
        self.known: dict[Numbers, Tensor] = {}

    def logits(self, setting: Numbers) -> Tensor:
        """Their logits (N, K) under a setting."""
        self.note()
        return self.under(setting)

    def number_right(self, setting: Numbers) -> int:
        """How many are answered right under a setting."""
        return int((self.logits(setting).argmax(dim=1) == self.labels).sum())

    def log_likelihood(self, setting: Numbers) -> Tensor:
        """The labels' log-likelihood under a setting at each of ``TEMPERATURES``: (T,), in float64."""
        if setting not in self.known:
            logits = self.logits(setting).double()
            values = [
                -F.cross_entropy(logits / temperature, self.labels, reduction="sum").item()
                for temperature in TEMPERATURES
            ]
            self.known[setting] = torch.tensor(values, dtype=torch.float64)
        return self.known[setting]


def peak(values: Sequence[float]) -> float:
    """The largest of evenly spaced values, or the top of the parabola through it and its neighbours."""
    top = max(range(len(values)), key=lambda index: values[index])
    if not 0 < top < len(values) - 1:
        return values[top]
    left, middle, right = values[top - 1 : top + 2]
    bend = 2 * middle - left - right
    return middle + (right - left) ** 2 / (8 * bend) if bend > 0 else middle


def number_right(setting: Numbers, held_out: Sequence[HeldOut]) -> int:
    """How many of all held-out images are answered right under a setting."""
    return sum(part.number_right(setting) for part in held_out)


def most_likely(
    settings: Sequence[Numbers],
    usual: Numbers,
    held_out: Sequence[HeldOut],
    falls: int | None = None,
) -> Numbers:
    """The setting that is most likely after all held-out images, at its best temperature.

    Before, the logarithm of each of its numbers is normal around that of ``usual``, with a standard
    deviation of a factor of ten. The likelihood grows with the number of images and the prior does
    not: few images, which can't tell, hardly move a setting, and of many the prior is no matter.

    falls: after so many settings in a row below the best no more are tried; None: all are.
    """
    best = usual
    most = -math.inf
    fallen = 0
    for setting in settings:
        likelihood = sum(part.log_likelihood(setting) for part in held_out)  # (T,)
        assert isinstance(likelihood, Tensor)
        distances = [math.log10(number / middle) for number, middle in zip(setting, usual)]
        score = peak(likelihood.tolist()) - sum(distance**2 for distance in distances) / 2
        if score > most:
            best = setting
            most = score
            fallen = 0
        else:
            fallen += 1
        if fallen == falls:
            break
    return best


def best_temperature(setting: Numbers, held_out: Sequence[HeldOut]) -> float:
    """The temperature under which the labels of all held-out images are most likely."""
    logits = torch.cat([part.logits(setting) for part in held_out])  # (N, K)
    labels = torch.cat([part.labels for part in held_out])  # (N,)
    return fit_temperature(logits.log_softmax(dim=1), labels)


def answers_at(logits: Tensor, temperature: float) -> Prediction:
    """Answers of logits (N, K) at a temperature."""
    logits = logits.float()
    return Prediction((logits / temperature).softmax(dim=-1), energy=-logits.logsumexp(dim=-1))


class SizedByState(nn.Module):
    """A learner that makes its tensors named in ``sized`` as large as those of a state that it
    loads."""

    sized: tuple[str, ...]

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> Any:  # noqa: ANN401  (torch's own type is private)
        # not by a hook: the one before a module loads is public from torch 2.5 on
        for name in state_dict.keys() & {*self.sized}:
            tensor = getattr(self, name)
            tensor.data = tensor.new_empty(state_dict[name].shape)
        return super().load_state_dict(state_dict, strict, assign)


class FeatureMethod(Method):
    """Fitted to the features of the training images before the first epoch.

    The learner maps features (B, E) and zero-shot logits (B, K) to logits (B, K). Without its
    ``class_part``, for classes that were not trained, it gives the zero-shot logits.
    """

    learner: nn.Module
    prompts_texts = False

    def hand_crafted_templates(self) -> list[str]:
        """For ImageNet the seven selected ones, as Tip-Adapter has it."""
        if self.dataset.startswith("ImageNet"):
            return SELECTED_TEMPLATES
        return super().hand_crafted_templates()

    def encode(self) -> Encoded:
        return self.hand_crafted[None], None  # (1, K, E)

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        texts, _ = encoded or self.encode()
        features = self.towers.encode_images(images)  # (1, B, E)
        logits = self.towers.logits(features, texts)  # (1, B, K)
        with torch.autocast(self.device.type, enabled=False):
            logits = self.learner(features[0], logits[0])[None]
        return Scores(logits, features, texts, images)

    def learned_figures(self) -> dict[str, float]:
        buffers = self.learner.named_buffers()
        return {name: value.item() for name, value in buffers if value.dim() == 0}

    def parameter_groups(self, lr: float) -> ParameterGroups:
        return [{"params": list(self.learner.parameters()), "lr": 0.0}]  # epochs learn nothing more


class FilledMethod(FeatureMethod):
    """A method that is filled with the features of training images, and takes its settings by held-out
    ones: it can be fitted to features alone, as often as cross-validation asks for it.
    """

    is_one_fit = True

    def fill(self, features: Tensor, labels: Tensor) -> None:
        """Sets what is made of the training images alone, of features (R, N, E) of R views, of any
        length, and labels (N,)."""
        raise NotImplementedError

    def under(self, features: Tensor) -> Callable[[Numbers], Tensor]:
        """What it says of held-out images as it is filled now: a function that maps a setting to
        logits (N, K); features: (N, E), of length one."""
        raise NotImplementedError

    def best(self, held_out: Sequence[HeldOut]) -> Numbers:
        """The setting that is best for all held-out images together, as ``CHOICE`` has it. Each part of
        these may have been answered by the method as it was filled with other images."""
        raise NotImplementedError

    def take(self, setting: Numbers) -> None:
        """Sets what it is filled with and the setting say."""
        raise NotImplementedError

    def choose(self, held_out: Sequence[HeldOut]) -> Numbers:
        """Takes and returns the ``best`` setting, and takes the temperature under which the labels are
        most likely."""
        setting = self.best(held_out)
        self.take(setting)
        self.learner.get_buffer("temperature").fill_(best_temperature(setting, held_out))
        return setting

    def fit_for_other_classes(self) -> None:
        """Sets what only answers among other classes take, when all else is fitted: cross-validation,
        which never asks for others, does without."""

    @property
    def by_likelihood(self) -> bool:
        """Whether its settings are those under which held-out labels are most likely."""
        is_so: bool = self.settings.CHOICE == "likelihood"
        return is_so

    @property
    def is_fitted_in_folds(self) -> bool:
        """Whether its training is one fit, whose settings training images in folds tell."""
        return self.by_likelihood and self.is_one_fit

    def fit_in_folds(
        self, training: TrainingImages, groups: Tensor | None, seed: int
    ) -> tuple[Prediction, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # the same views where a killed run goes on
            views, labels = self.views_of(training)
            shown = views[0]
            if self.settings.get("AUGMENT_EPOCH", 0):
                (shown,), _ = self.towers.features_of(training(), normalize=False)
        title = f"Fitting {self.name()}"
        with tqdm(desc=title, unit=" fits", delay=2, mininterval=1, dynamic_ncols=True) as fits:
            answers = self.cross_fit(Known(views, shown, labels, groups), seed, fits.update)
        self.fit_for_other_classes()
        return answers, labels

    @torch.no_grad()
    @one_thread()
    def cross_fit(
        self, known: Known, seed: int, note: Callable[[], object] = lambda: None
    ) -> Prediction:
        """Fits it to known pictures, under the settings that are best for pictures which it was not
        filled with.

        Every picture is encoded once. Each fold is held out from a fit to the others; the settings are
        those that are best for all held-out pictures, and what is kept is fitted to all pictures under
        them.

        Args:
            seed: of the division into folds; note: is called before each fit.

        Returns:
            the answers to the pictures on the CPU, each by the method as it was filled without the
            picture's fold, under the settings that are best for the other folds.
        """
        labels = known.labels
        fold = candidates.folds(labels.cpu(), candidates.FOLDS, seed, known.groups)
        fold = fold.to(labels.device)
        held_out = []
        places = []
        for number in fold.unique():
            rest = known.part(fold != number)
            self.fill(rest.views, rest.labels)
            place = (fold == number).nonzero().flatten()
            asked = known.part(place)
            under = self.under(F.normalize(asked.shown, dim=-1))
            held_out.append(HeldOut(under, asked.labels, note))
            places.append(place)
        answers = []
        for number, part in enumerate(held_out):
            others = held_out[:number] + held_out[number + 1 :]
            setting = self.best(others)
            temperature = best_temperature(setting, others)
            answers.append(answers_at(part.logits(setting), temperature).cpu())
        note()
        self.fill(known.views, known.labels)
        self.choose(held_out)
        return Prediction.concatenate(answers).part(torch.cat(places).argsort().cpu())

    def predict(self, logits: Tensor) -> Prediction:
        """At the learner's ``temperature``; other classes' answers are the texts' alone."""
        if self.left_out:
            return super().predict(logits)
        temperature = self.learner.get_buffer("temperature")
        return Prediction((logits[0] / temperature).softmax(dim=-1))

    def views_of(self, training: TrainingImages) -> tuple[Tensor, Tensor]:
        """What it is filled with: features (R, N, E), of any length, of the training images in R =
        AUGMENT_EPOCH augmented views, or as they are tested where that is 0 or it takes no views;
        labels (N,)."""
        rounds = self.settings.get("AUGMENT_EPOCH", 0)
        if not rounds:
            return self.towers.features_of(training(), normalize=False)
        # (1, N, E), (N,) each
        views = [
            self.towers.features_of(training(augmented=True), normalize=False)
            for _ in range(rounds)
        ]
        return torch.cat([features for features, _ in views]), views[0][1]

    def held_out(self, validation: Batches) -> list[HeldOut]:
        """Validation images, for ``choose``."""
        (features,), labels = self.towers.features_of(validation)  # (N, E), (N,)
        return [HeldOut(self.under(features), labels)]

    def zero_shot(self, features: Tensor) -> Tensor:
        """Logits (N, K) of the hand-crafted prompts for features (N, E)."""
        return self.towers.logits(features[None], self.hand_crafted[None])[0]

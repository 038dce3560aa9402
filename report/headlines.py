"""The head of a report: a series' result beside its comparisons; here for runs with one
label per image."""

from dataclasses import dataclass

import numpy

from results.runs import FinishedRun, RunSeries
from trainers.common.console import counted
from trainers.common.record_file import nested, stands_for_others, tested_on
from trainers.evaluation.figures import votes_alone, wilson

ACCURACY = "accuracy"  # the metric of a headline, and its name there
RIGHT = "right answers"


@dataclass(frozen=True)
class Headline:
    """A series' result, in percent and mean over its seeds, beside its comparisons.

    Attributes:
        tested_on, model: of ``RunSeries``; model is its ``name``.
        trainer: the trainer alone.
        zero_shot_itself: whether nothing was trained.
        seeds: their number.
        images: number of test images, 0 where it is not known.
        of: the same in words, as in "9 test images".
        measure: its name, as in "right answers"; value: of it.
        is_least: whether the kept classifier has seen more than those that were tested, so that it is at least about
            as good.
        low, high: ends of the value's 95 % interval over images like these; None where it is not known.
        chance: the result of guessing; chance_of: the choices, in words.
        zero_shot: the same CLIP's result without training on the same images, None where it is
            not among the runs.
        commonest: the result of always answering the commonest class, None where it is not known.
        facts: further measures, name → value in words.
        votes: how often each template alone is right, in words; "" with one template.
        warning: about templates that are worse than without training, with the next step; "" without any.
    """

    tested_on: str
    model: str
    trainer: str
    zero_shot_itself: bool
    seeds: int
    images: int
    of: str
    measure: str
    value: float
    is_least: bool
    low: float | None
    high: float | None
    chance: float
    chance_of: str
    zero_shot: float | None
    commonest: float | None
    facts: dict[str, str]
    votes: str
    warning: str

    @property
    def shows_no_gain(self) -> bool:
        """Whether the untrained CLIP lies within the interval, so that training may not have helped."""
        if self.zero_shot is None or self.zero_shot_itself:
            return False
        if self.low is None or self.high is None:
            return False
        return self.low <= self.zero_shot <= self.high


def headline(entry: RunSeries, untrained: float | None) -> Headline:
    """The ``Headline`` of a series for one label per image; untrained: its ``zero_shot``."""
    run = entry.first
    images = number_of_images(entry)
    accuracy = mean_of(entry, ACCURACY)
    classes = len(run.classnames)
    independent = run.metrics.get("effective_images", images)
    low, high = None, None
    if images:
        low, high = (100 * end for end in wilson(accuracy / 100 * independent, independent))
    counts = numpy.bincount(run.answers["label"]) if run.answers else None
    return Headline(
        tested_on=entry.tested_on,
        model=entry.name,
        trainer=run.record["trainer"],
        zero_shot_itself=entry.is_zero_shot,
        seeds=len(entry.runs),
        images=images,
        of=tested_on(run.record, images),
        measure=RIGHT,
        value=accuracy,
        is_least=is_least(run),
        low=low,
        high=high,
        chance=100 / classes,
        chance_of=f"{classes} classes",
        zero_shot=untrained,
        commonest=None if counts is None else float(100 * max(counts) / sum(counts)),
        facts={},
        votes=votes_in_words(entry, untrained),
        warning=below_untrained(entry, untrained),
    )


def is_least(run: FinishedRun) -> bool:
    """Return whether a run was tested out of fold on pictures that stand for others."""
    return "folds" in run.record and stands_for_others(run.record)


def single(heads: list[Headline]) -> Headline | None:
    """Return the headline that can stand alone: the only training's, or the only one."""
    trained = [head for head in heads if not head.zero_shot_itself]
    if len(trained) == 1:
        return trained[0]
    return heads[0] if len(heads) == 1 else None


def template_accuracies(entry: RunSeries) -> list[float]:
    """Accuracy of each template alone in percent, mean over seeds; none where there are none."""
    of_seeds = [run.metrics.get("template_accuracy", ()) for run in entry.runs]
    return [float(numpy.mean(of_template)) for of_template in zip(*of_seeds)]


def votes_in_words(entry: RunSeries, untrained: float | None) -> str:
    """Compare each template alone, all together, and the CLIP without training, in words; "" with
    one template."""
    templates = template_accuracies(entry)
    if len(templates) < 2:
        return ""
    words = f"Right: {votes_alone(templates)}, fused {mean_of(entry, ACCURACY):.1f} %"
    return f"{words}." if untrained is None else f"{words}, untrained CLIP {untrained:.1f} %."


def below_untrained(entry: RunSeries, untrained: float | None) -> str:
    """Return a warning, with the next step, where templates are worse than the CLIP without training by more
    than their 95 % intervals (Wilson's); "" where none is, or nothing is known."""
    images = number_of_images(entry)
    templates = template_accuracies(entry)
    if untrained is None or not images:
        return ""
    independent = entry.first.metrics.get("effective_images", images)
    highest = [100 * wilson(each / 100 * independent, independent)[1] for each in templates]
    below = sum(high < untrained for high in highest)
    if not below:
        return ""
    epochs = nested(entry.first.record, "config", "OPTIM", "MAX_EPOCH")
    longer = f" ({2 * epochs} for OPTIM.MAX_EPOCH)" if isinstance(epochs, int) else ""
    return (
        f"{below} of the {counted(len(templates), 'template')} of {entry.name} on {entry.tested_on} "
        f"are right less often than the same CLIP untrained ({untrained:.1f} %): the training was "
        f"too short, or went wrong. Train for longer{longer}, or take a trainer that trains no "
        "prompts: --trainer GDA"
    )


def mean_of(entry: RunSeries, metric: str) -> float:
    """Mean of a metric over seeds."""
    return float(numpy.mean([run.metrics[metric] for run in entry.runs]))


def number_of_images(entry: RunSeries) -> int:
    """The number of test images of one seed; 0 where it is not known."""
    run = entry.first
    images: int = run.metrics.get("images", len(run.answers["image"]) if run.answers else 0)
    return images


def comparable(entry: RunSeries) -> tuple[object, ...]:
    """The key that two series share if they were tested on the same images with the same CLIP."""
    run = entry.first
    hashes = (run.record[name] for name in ("backbone_hash", "split_hash"))
    return entry.task[:2], number_of_images(entry), *hashes, *run.classnames

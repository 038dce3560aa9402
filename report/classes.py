"""The head of a report: how good the answers are, and which classes are taken for which."""

from typing import Any

import numpy
import pandas
from sklearn.metrics import confusion_matrix

from results.runs import RunSeries
from trainers.common.console import counted
from trainers.common.record_file import nested, tested_on
from trainers.evaluation.figures import votes_alone, wilson

from .gallery import thumbnail

MATRIX = 25  # classes that are shown in full; of more those that take part in most mistakes
CONFUSIONS = 6
PICTURES = 6  # of each confusion
Headline = dict[str, Any]  # see ``headlines``


def headlines(series: list[RunSeries]) -> list[Headline]:
    """One dict for each series that was tested: what its accuracy is, and what it is to be compared
    with.

    Returns:
        ``tested_on``, ``model``, ``trainer``, ``zero_shot_itself``, ``seeds``, ``images``, their number and what
        they are in words, ``of``, ``classes``, and in
        percent: ``accuracy``, mean over seeds; ``low`` and ``high``, ends of its 95 % interval
        (Wilson) over images like these; ``chance``; ``zero_shot``, what the same CLIP without
        training reaches on the same images, and ``commonest``, what always answering the commonest
        class would, or None where not known. In words ``votes``, how often each vote alone is right,
        and ``warning``, of templates that are worse than without training; "" where there is none.
    """
    tested = [entry for entry in series if all("accuracy" in run.metrics for run in entry.runs)]
    zero_shot = {
        material(entry): mean_accuracy(entry) for entry in reversed(tested) if entry.is_zero_shot
    }
    made = []
    for entry in tested:
        run = entry.first
        images = number_of_images(entry)
        accuracy = mean_accuracy(entry)
        classes = len(run.classnames)
        low, high = wilson(round(accuracy / 100 * images), images) if images else (0.0, 1.0)
        counts = numpy.bincount(run.answers["label"]) if run.answers else None
        untrained = zero_shot.get(material(entry))
        made.append(
            {
                "tested_on": entry.tested_on,
                "model": entry.name,
                "trainer": run.record["trainer"],
                "zero_shot_itself": entry.is_zero_shot,
                "seeds": len(entry.runs),
                "accuracy": accuracy,
                "images": images,
                "of": tested_on(run.record, images),
                "classes": classes,
                "low": 100 * low,
                "high": 100 * high,
                "chance": 100 / classes,
                "zero_shot": untrained,
                "commonest": None if counts is None else float(100 * max(counts) / sum(counts)),
                "votes": votes_in_words(entry, untrained),
                "warning": below_untrained(entry, untrained),
            }
        )
    return made


def template_accuracies(entry: RunSeries) -> list[float]:
    """Accuracy of each template alone in percent, mean over seeds; none where there are none."""
    of_seeds = [run.metrics.get("template_accuracy", ()) for run in entry.runs]
    return [float(numpy.mean(of_template)) for of_template in zip(*of_seeds)]


def votes_in_words(entry: RunSeries, untrained: float | None) -> str:
    """How often each vote alone is right, all together, and the CLIP without training; "" where
    there is one vote only."""
    templates = template_accuracies(entry)
    image = None
    if all("image_accuracy" in run.metrics for run in entry.runs):
        image = float(numpy.mean([run.metrics["image_accuracy"] for run in entry.runs]))
    if len(templates) < 2 and image is None:
        return ""
    words = f"Right: {votes_alone(templates, image)}, fused {mean_accuracy(entry):.1f} %"
    return f"{words}." if untrained is None else f"{words}, untrained CLIP {untrained:.1f} %."


def below_untrained(entry: RunSeries, untrained: float | None) -> str:
    """A warning, with what to do, where templates are worse than the CLIP without training by more
    than their 95 % intervals (Wilson's); "" where none is, or it is not known."""
    images = number_of_images(entry)
    templates = template_accuracies(entry)
    if untrained is None or not images:
        return ""
    highest = [100 * wilson(round(each / 100 * images), images)[1] for each in templates]
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


def mean_accuracy(entry: RunSeries) -> float:
    mean: float = numpy.mean([run.metrics["accuracy"] for run in entry.runs])
    return mean


def number_of_images(entry: RunSeries) -> int:
    """0 where it is not known."""
    run = entry.first
    images: int = run.metrics.get("images", len(run.answers["label"]) if run.answers else 0)
    return images


def material(entry: RunSeries) -> tuple[object, ...]:
    """What two series share that were tested on the same images with the same CLIP."""
    run = entry.first
    hashes = (run.record[name] for name in ("backbone_hash", "split_hash"))
    return entry.task[:2], number_of_images(entry), *hashes, *run.classnames


def class_page(entry: RunSeries, images: dict[str, str]) -> dict[str, Any]:
    """What the answers of a series, all seeds together, look like class by class.

    Args:
        images: name of each test image → path, for the pictures.

    Returns:
        ``seeds``, their number; ``classes``, from the least accurate on, dicts of ``name``,
        ``images`` (of one seed), ``accuracy`` (percent) and ``mistakes`` (the most frequent wrong
        answer and its number, or None); of the confusion matrix ``names``, ``rows`` (name, and for
        each answer and for all others together the number, its share in [0, 1], and whether it is
        right) and ``left_out``, how many classes it lacks; ``confusions``, the most frequent, dicts
        of ``truth``, ``answer``, ``number``, ``of`` and ``cards``.
    """
    label = entry.pooled("label")
    answer = entry.pooled("answer")
    there = numpy.union1d(label, answer)
    names = [entry.first.class_name(of_class) for of_class in there]
    counts = confusion_matrix(label, answer, labels=there)  # (truth, answer)
    wrong = counts - numpy.diag(counts.diagonal())
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    shown = numpy.sort(numpy.argsort(-mistakes, kind="stable")[:MATRIX])
    pairs = sorted(zip(*numpy.nonzero(wrong)), key=lambda pair: -wrong[pair])[:CONFUSIONS]
    return {
        "seeds": len(entry.runs),
        "classes": class_rows(counts, names, len(entry.runs)),
        "names": [names[label] for label in shown],
        "rows": matrix_rows(counts, names, shown),
        "left_out": len(there) - len(shown),
        "confusions": [
            {
                "truth": names[truth],
                "answer": names[answer],
                "number": wrong[truth, answer],
                "of": counts[truth].sum(),
                "cards": cards(entry, there[truth], there[answer], images),
            }
            for truth, answer in pairs
        ],
    }


def class_rows(counts: numpy.ndarray, names: list[str], seeds: int) -> list[dict[str, Any]]:
    """``classes`` of ``class_page``; counts: (truth, answer) of all seeds."""
    rows = []
    for truth in numpy.flatnonzero(counts.sum(axis=1)):
        wrong = counts[truth].copy()
        wrong[truth] = 0
        commonest = wrong.argmax()
        images = counts[truth].sum()
        rows.append(
            {
                "name": names[truth],
                "images": round(images / seeds),
                "accuracy": 100 * counts[truth, truth] / images,
                "mistakes": (names[commonest], wrong[commonest]) if wrong.any() else None,
            }
        )
    return sorted(rows, key=lambda row: row["accuracy"])


def matrix_rows(
    counts: numpy.ndarray, names: list[str], shown: numpy.ndarray
) -> list[tuple[str, list[tuple[int, float, bool]]]]:
    """``rows`` of ``class_page``, of the classes that are shown."""
    rows = []
    for truth in shown:
        images = counts[truth].sum()
        if not images:
            continue
        cells = [(counts[truth, column], column == truth) for column in shown]
        cells.append((images - counts[truth, shown].sum(), False))  # all others
        rows.append((names[truth], [(number, number / images, right) for number, right in cells]))
    return rows


def cards(
    entry: RunSeries, truth: int, answer: int, images: dict[str, str]
) -> list[dict[str, Any]]:
    """The images of a class that were taken for another, each once, those with the highest
    probability first.
    """
    taken = []
    for answers in (run.known_answers for run in entry.runs):
        is_taken = (answers["label"] == truth) & (answers["answer"] == answer)
        taken.append(pandas.Series(answers["top_probability"][:, 0], answers["image"])[is_taken])
    highest = pandas.concat(taken).groupby(level=0, sort=False).max()
    return [
        {
            "image": image,
            "probability": 100 * float(probability),
            "picture": thumbnail(images.get(image)),
        }
        for image, probability in highest.nlargest(PICTURES).items()
    ]

"""What ``evaluate`` measures of labelled pictures by a run of either task."""

import numpy
import pytest

from labelling import PromptedClassifier
from tests.labelling.cases import MULTI, NAMES, PICTURES, over_tasks, write
from trainers.evaluation.figures import effective_number, wilson
from trainers.evaluation.multi_label import f1_interval


@over_tasks
def test_an_evaluation_counts_what_was_trained_on_and_its_unit_is_a_group(
    task, run_of, own_pictures
):
    classifier = PromptedClassifier.load(run_of(task))
    folder = own_pictures(task)
    rows = task.rows()
    truth = numpy.array(
        [[name in task.own(number) for name in NAMES] for number in range(PICTURES)]
    )
    groups = numpy.arange(PICTURES)
    for number in range(0, PICTURES, 5):  # so that some are wrong
        rows[number] = (rows[number][0], "red")
        truth[number] = [name == "red" for name in NAMES]
        groups[number] = PICTURES
    grouped = [(*row, group) for row, group in zip(rows, groups)]
    measured = classifier.evaluate(
        write(folder / "grouped.csv", grouped, ("image", "label", "group"))
    )
    assert measured.images == measured.trained_on == PICTURES
    order = sorted(range(PICTURES), key=lambda number: rows[number][0])  # as a table has them
    truth = truth[order]
    groups = groups[order]
    if task is MULTI:
        given = numpy.array([[name in own for name in NAMES] for own in measured.answers.labels])
        expected = [end / 100 for end in f1_interval(given, truth, groups)]
    else:
        right = measured.answers.probabilities.argmax(axis=1) == truth.argmax(axis=1)
        number = effective_number(right, groups)
        expected = wilson(right.mean() * number, number)
    assert measured.interval == pytest.approx(tuple(expected))
    alone = classifier.evaluate(write(folder / "changed.csv", rows))
    assert alone.interval != pytest.approx(measured.interval)


@over_tasks
def test_a_label_that_never_occurs_in_what_is_evaluated_is_no_error(task, run_of, own_pictures):
    kept = [row for number, row in enumerate(task.rows()) if "green" not in task.own(number)]
    part = write(own_pictures(task) / "part.csv", kept)
    assert PromptedClassifier.load(run_of(task)).evaluate(part).images == len(kept)

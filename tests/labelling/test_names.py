"""Names of a trained run of either task: a permutation permutes, a subset keeps what was trained, an added
name is answered by its text."""

import numpy

from labelling import PromptedClassifier
from tests.labelling.cases import MULTI, NAMES, over_tasks


def paths_of(folder):
    return [str(folder / f"{number}.png") for number in range(9)]


@over_tasks
def test_a_permutation_of_the_names_permutes_the_answers_and_changes_no_label(
    task, run_of, pictures_of
):
    classifier = PromptedClassifier.load(run_of(task))
    own = classifier.predict(paths_of(pictures_of(task)))
    order = [2, 0, 1]
    other = classifier.with_classes([NAMES[place] for place in order])
    answers = other.predict(paths_of(pictures_of(task)))
    numpy.testing.assert_allclose(
        answers.probabilities, own.probabilities[:, order], rtol=1e-5, atol=1e-7
    )
    assert [set(names) for names in answers.labels] == [set(names) for names in own.labels]


@over_tasks
def test_a_subset_keeps_what_was_trained_and_its_names_can_be_added_again(
    task, run_of, pictures_of
):
    """Of one label each the others' probabilities are shared out; of several each stays its own."""
    classifier = PromptedClassifier.load(run_of(task))
    own = classifier.predict(paths_of(pictures_of(task)))
    some = classifier.with_classes(NAMES[:2])
    expected = own.probabilities[:, :2]
    if task is not MULTI:
        expected = expected / expected.sum(axis=1, keepdims=True)
    answers = some.predict(paths_of(pictures_of(task)))
    numpy.testing.assert_allclose(answers.probabilities, expected, rtol=1e-4, atol=1e-6)
    again = some.with_classes(NAMES).predict(paths_of(pictures_of(task)))
    numpy.testing.assert_allclose(again.probabilities, own.probabilities, rtol=1e-5, atol=1e-7)


@over_tasks
def test_an_added_name_is_answered_by_its_text(task, run_of, pictures_of):
    """The text of a trained name's twin: of a name alone nothing but the text is known."""
    classifier = PromptedClassifier.load(run_of(task))
    paths = paths_of(pictures_of(task))
    added = classifier.with_classes([*NAMES, "banana", "car"])
    exchanged = classifier.with_classes([*NAMES, "car", "banana"])
    answers = added.predict(paths)
    numpy.testing.assert_allclose(
        answers.probabilities,
        exchanged.predict(paths).probabilities[:, [0, 1, 2, 4, 3]],
        rtol=1e-4,
        atol=1e-6,
    )
    assert not numpy.allclose(answers.probabilities[:, 3], answers.probabilities[:, 4])
    assert answers.note


@over_tasks
def test_a_promise_is_of_all_names_and_a_least_certainty_of_any(task, run_of):
    """In whichever order."""
    promised = PromptedClassifier.load(run_of(task), max_error=0.8)
    assert promised.rule is not None
    assert promised.with_classes([*reversed(NAMES)]).rule is promised.rule
    assert promised.with_classes(NAMES[:2]).rule is None
    assert promised.with_classes([*NAMES, "car"]).rule is None
    certain = PromptedClassifier.load(run_of(task), min_certainty=0.6)
    assert certain.with_classes(NAMES[:2]).rule is certain.rule

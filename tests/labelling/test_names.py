"""Names of a trained run of either task: a permutation permutes, a subset keeps what was trained, an added
name is answered by its text."""

import numpy

import predict
from labelling import PromptedClassifier
from tests.labelling.cases import MULTI, NAMES, over_tasks, read
from tests.runs import call


def paths_of(folder):
    return [str(folder / f"{number}.png") for number in range(9)]


@over_tasks
def test_a_permutation_of_the_names_permutes_the_answers_and_changes_nothing_else(
    task, run_of, pictures_of, tmp_path
):
    """In Python and in a table."""
    classifier = PromptedClassifier.load(run_of(task))
    paths = paths_of(pictures_of(task))
    own = classifier.predict(paths)
    order = [2, 0, 1]
    names = [NAMES[place] for place in order]
    answers = classifier.with_classes(names).predict(paths)
    assert answers.classnames == names
    numpy.testing.assert_allclose(
        answers.probabilities, own.probabilities[:, order], rtol=1e-5, atol=1e-7
    )
    numpy.testing.assert_allclose(answers.uncertainty, own.uncertainty, rtol=1e-4, atol=1e-6)
    assert list(map(set, answers.labels)) == list(map(set, own.labels))
    assert answers.note == own.note == ""
    table = tmp_path / "table.csv"
    words = "--run", run_of(task), "--classes", *names, "--probabilities", "--csv", table
    assert call(predict.main, *paths, *words) == 0
    for row, known in zip(read(table), own.probabilities):
        shown = [float(row[f"probability_{name}"]) for name in NAMES]
        numpy.testing.assert_allclose(shown, known, rtol=1e-4, atol=1e-6)


@over_tasks
def test_a_subset_keeps_what_was_trained_and_its_names_can_be_added_again(
    task, run_of, pictures_of
):
    """Of one label each the others' probabilities are shared out; of several each stays its own."""
    classifier = PromptedClassifier.load(run_of(task))
    own = classifier.predict(paths_of(pictures_of(task)))
    some = classifier.with_classes([NAMES[2], NAMES[0]])
    expected = own.probabilities[:, [2, 0]]
    if task is not MULTI:
        expected = expected / expected.sum(axis=1, keepdims=True)
    answers = some.predict(paths_of(pictures_of(task)))
    numpy.testing.assert_allclose(answers.probabilities, expected, rtol=1e-4, atol=1e-6)
    assert answers.note == ""
    again = some.with_classes(NAMES).predict(paths_of(pictures_of(task)))
    numpy.testing.assert_allclose(again.probabilities, own.probabilities, rtol=1e-5, atol=1e-7)


@over_tasks
def test_an_added_name_is_answered_by_its_text_and_takes_nothing_from_the_others(
    task, run_of, pictures_of
):
    """Of a name alone nothing but the text is known. The odds between trained names stay."""
    classifier = PromptedClassifier.load(run_of(task))
    paths = paths_of(pictures_of(task))
    own = classifier.predict(paths).probabilities
    added = classifier.with_classes([*NAMES, "banana", "car"]).predict(paths)
    exchanged = classifier.with_classes(["car", *NAMES, "banana"]).predict(paths)
    numpy.testing.assert_allclose(
        added.probabilities, exchanged.probabilities[:, [1, 2, 3, 4, 0]], rtol=1e-4, atol=1e-6
    )
    assert not numpy.allclose(added.probabilities[:, 3], added.probabilities[:, 4])
    assert "banana" in added.note
    trained = added.probabilities[:, :3]
    if task is MULTI:
        assert not any({"banana", "car"} & {*labels} for labels in added.labels)
    else:
        trained = trained / trained.sum(axis=1, keepdims=True)
    numpy.testing.assert_allclose(trained, own, rtol=1e-3, atol=1e-5)


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

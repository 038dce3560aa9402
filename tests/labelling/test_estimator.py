"""The classifier as scikit-learn's own functions take one."""

import numpy
import pytest
from PIL import Image
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_predict

from labelling.classifier import PromptedClassifier
from labelling.estimator import ClipClassifier
from tests.runs import refuses


@pytest.fixture
def colours(tmp_path):
    """Paths and names of 24 pictures of three colours, as arrays."""
    paths = []
    names = []
    for place, name in enumerate(("red", "green", "blue")):
        for number in range(8):
            colour = [0, 0, 0]
            colour[place] = 140 + 13 * number
            paths.append(f"{tmp_path}/{name} {number}.png")
            names.append(name)
            Image.new("RGB", (16, 16), tuple(colour)).save(paths[-1])
    return numpy.array(paths), numpy.array(names)


def test_it_is_cloned_and_told_for_a_classifier():
    classifier = ClipClassifier("GDA", "tiny", seed=3, settings={"OPTIM.MAX_EPOCH": 3})
    assert is_classifier(classifier)
    assert clone(classifier).get_params() == classifier.get_params()
    with pytest.raises(NotFittedError):
        classifier.predict(["a.png"])


def test_it_is_cross_validated_over_an_array_of_paths(colours, tmp_path):
    paths, names = colours
    before = sorted(tmp_path.iterdir())
    classifier = ClipClassifier("GDA", "tiny")
    assert (cross_val_predict(classifier, paths, names, cv=2) == names).all()
    assert sorted(tmp_path.iterdir()) == before, "a fit leaves nothing behind"


def test_its_answers_are_those_of_the_same_run(colours, tmp_path):
    paths, names = colours
    run = PromptedClassifier.fit(
        paths, names, trainer="GDA", backbone="tiny", folder=tmp_path / "run"
    )
    classifier = ClipClassifier("GDA", "tiny").fit(paths, names)
    numpy.testing.assert_array_equal(classifier.predict_proba(paths), run.predict_proba(paths))
    assert classifier.classes_.tolist() == ["blue", "green", "red"] == run.classnames
    assert classifier.score(paths, names) == run.evaluate(paths, names).accuracy == 1


def of_probabilities(classifier, paths, names):
    answers = cross_val_predict(classifier, paths, names, cv=2, method="predict_proba")
    return numpy.unique(names)[answers.argmax(axis=1)]


def stacked(classifier, paths, names):
    return StackingClassifier([("clip", classifier)], cv=2).fit(paths, names).predict(paths)


def calibrated(classifier, paths, names):
    together = CalibratedClassifierCV(classifier, cv=2, ensemble=False)
    return together.fit(paths, names).predict(paths)


@pytest.mark.parametrize("use", [of_probabilities, stacked, calibrated])
def test_where_scikit_learn_numbers_the_classes_their_names_are_given(colours, use):
    paths, names = colours
    with refuses("the labels are numbers up to 2, .* give ClipClassifier classnames=sorted"):
        use(ClipClassifier("GDA", "tiny"), paths, names)
    classifier = ClipClassifier("GDA", "tiny", classnames=sorted(set(names)))
    assert (use(classifier, paths, names) == names).all()


def test_the_columns_are_in_the_order_of_the_numbers(colours):
    paths, names = colours
    classnames = ["red", "blue", "green"]
    numbers = [classnames.index(name) for name in names]
    classifier = ClipClassifier("GDA", "tiny", classnames=classnames).fit(paths, numbers)
    assert classifier.classes_.tolist() == [0, 1, 2]
    assert classifier.predict(paths).tolist() == numbers
    assert classifier.predict_proba(paths).argmax(axis=1).tolist() == numbers

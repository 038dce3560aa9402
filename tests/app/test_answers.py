"""demo_app.py: what the page says of a run's answers."""

import json
import shutil
from types import SimpleNamespace

import numpy
import pytest

import demo_app
import predict
from app import demo as asked
from app.answer import describe, percent
from tests.app.conftest import CLASSES, NASTY, Page, make_demo, png
from tests.conftest import in_turn
from tests.trainers.test_every_trainer import TRAINERS
from trainers import PromptedClassifier
from trainers.classifier.prompted import Answers
from trainers.evaluation.doubts import NOT_KNOWN, Judge, decimal


def answers_of(probability):
    """Of one image, the first of three classes."""
    rest = (1 - probability) / 2
    return Answers(
        ["a", "b", "c"],
        [None],
        ["a"],
        numpy.array([[probability, rest, rest]], dtype="float32"),
        numpy.array([1 - probability], dtype="float32"),
    )


# ---- words ----


def test_shares_are_never_called_certain_or_impossible():
    assert [percent(share) for share in (1.0, 0.9995, 0.9994, 0.5, 0.0005, 0.0004, 0.0)] == [
        "over 99.9 %",
        "over 99.9 %",
        "99.9 %",
        "50.0 %",
        "0.1 %",
        "under 0.1 %",
        "under 0.1 %",
    ]
    assert [decimal(value) for value in (1.0, 0.125, 0.0031, 1.36e-5, 1e-6, 9e-7)] == [
        "1",
        "0.12",
        "0.0031",
        "0.000014",
        "0.000001",
        "less than 0.000001",
    ]


@pytest.mark.parametrize(
    "uncertainty, max_error, own, verdict, words",
    [
        (
            0.2,
            0.0,
            True,
            "Within the limit of 0 % errors on validation images.",
            "wrong among the validation images with at most that: 0 of 1",
        ),
        (
            0.3,
            0.0,
            True,
            "The model is not sure: beyond the limit of 0 % errors on validation images.",
            "wrong among the validation images with at most that: 1 of 2",
        ),
        (
            0.2,
            None,
            True,
            NOT_KNOWN,
            "No limit is set. Wrong among the run's 2 validation images: 1 of 2",
        ),
        (
            0.2,
            0.0,
            False,
            NOT_KNOWN,
            "The rejection threshold was set on the run's own classes, not on these.",
        ),
    ],
)
def test_the_verdict_is_sure_only_where_a_limit_was_measured(
    tmp_path, uncertainty, max_error, own, verdict, words
):
    numpy.savez(
        tmp_path / "predictions-val.npz",
        max_probability=numpy.array([0.2, 0.3]),
        label=numpy.zeros(2, int),
        top=numpy.array([[0], [1]]),
    )
    judge = Judge(str(tmp_path), max_error)
    found = describe(answers_of(1 - uncertainty), judge if own else None)
    assert found["verdict"] == verdict and words in found["basis"]
    assert found["doubtful"] is (None if verdict == NOT_KNOWN else "not sure" in verdict)


def test_names_are_lines_and_blank_ones_do_not_count():
    assert asked.class_names(" cat \r\n\r\n\tblack dog\r\n", CLASSES) == ["cat", "black dog"]
    assert asked.class_names("crane\ncrane", ["crane", "crane"]) == [
        "crane",
        "crane",
    ]  # the run's own, as in ImageNet's first lists


# ---- the page says what the classifier says ----


@pytest.mark.parametrize("name", in_turn(TRAINERS))
def test_every_trainers_answer_is_on_the_page(trained, data_root, name):
    folder = trained(name)[1]
    demo = make_demo(folder, data_root)
    page = Page(demo_app.make_app(demo).test_client().get("/?picture=example-3").text)
    path, truth = demo.pictures.examples["example-3"]
    answers = PromptedClassifier.load(folder).predict(path)

    def rows(probabilities, number):
        return [
            (CLASSES[label], percent(probabilities[label]))
            for label in sorted(range(6), key=lambda one: -probabilities[one])[:number]
        ]

    fused = rows(answers.probabilities[0], 5)
    votes = [] if answers.votes is None else [rows(vote, 3) for vote in answers.votes[0]]
    title = "Most probable classes" + (", all templates fused" if votes else "")
    assert page.tables == {
        title: fused,
        **{f"Template {number}": vote for number, vote in enumerate(votes, start=1)},
    }
    assert " ".join(fused[0]) in page.text and page.error is None
    assert ("Vacuity" in page.text, "Conflict" in page.text) == (answers.vacuity is not None,) * 2
    if answers.vacuity is not None:
        assert (
            f"Vacuity {decimal(answers.vacuity[0])} How" in page.text
            and f"Conflict {decimal(answers.conflict[0])} How" in page.text
        )
        agreeing = sum(vote[0][0] == answers.labels[0] for vote in votes)
        assert f"Alone, {agreeing} of {len(votes)} would answer {answers.labels[0]}." in page.text
    assert page.all("img", alt=f"The picture that was asked about, an example of {truth}")
    tested = demo.classifier.record["metrics"]["test"]
    assert (
        f"Right on {tested['accuracy']:.1f} % of its {tested['images']} test images." in page.text
    )
    verdict = "Right" if answers.labels[0] == truth else "Wrong"
    assert f"{verdict}: the data set says {truth}." in page.text


def test_an_uploaded_picture_is_answered_and_kept_for_the_next_question(
    ask, demo, folder, data_root
):
    path = f"{data_root}/dtd/images/woven/13.png"
    first = ask(sent=("woven.png", png(path)), classes="\r\n".join(CLASSES))
    (kept,) = first.all("input", name="kept")
    second = ask(kept=kept["value"], classes="cat\r\ndog")
    for page, classifier in (
        (first, demo.classifier),
        (second, PromptedClassifier.load(folder).with_classes(["cat", "dog"])),
    ):
        answers = classifier.predict(path)
        assert f"{answers.labels[0]} {percent(answers.probabilities.max())}" in page.text
    assert (
        f"{NOT_KNOWN} The rejection threshold was set on the run's own classes" in second.text
        and NOT_KNOWN not in first.text
    )
    assert second.all("p", **{"class": "unknown"}) and not second.all("p", **{"class": "sure"})
    assert second.all("a", href=f"/?picture={kept['value']}") and not first.all("a")


@pytest.mark.parametrize("name", ["CDC", "CoOp"])
def test_its_verdict_is_that_of_predict_in_the_same_words(
    trained, data_root, tmp_path, capsys, monkeypatch, name
):
    # with the image witness CDC is sure of all pictures of the miniature alike
    options = ("TRAINER.CDC.IMAGE_WITNESS", "False") if name == "CDC" else ()
    folder = shutil.copytree(trained(name, *options)[1], tmp_path / "run")
    paths = [path for path, _ in make_demo(folder, data_root).pictures.examples.values()]
    doubts = PromptedClassifier.load(folder).predict(paths).uncertainty
    wrong = numpy.arange(8)[:, None] > 3  # the four most doubted
    numpy.savez(
        folder / "predictions-val.npz",
        max_probability=doubts,
        label=numpy.zeros(8, int),
        top=wrong.astype(int),
    )
    pages = []

    def serve(app, port):
        pages.extend(
            Page(app.test_client().get(f"/?picture=example-{number}").text)
            for number in range(1, len(paths) + 1)
        )
        return SimpleNamespace(effective_port=port, run=lambda: None)

    monkeypatch.setattr(demo_app, "make_server", serve)

    def flagged(*options):
        """What predict.py flags of the examples, after it was found to be what the page says of them, in the same words."""
        pages.clear()
        assert demo_app.main(["--run", str(folder), "--root", data_root, *options]) == 0
        capsys.readouterr()
        assert predict.main(["--run", str(folder), "--json", *options, *paths]) == 0
        out, log = capsys.readouterr()
        found = [row["doubtful"] for row in json.loads(out)]
        kind = {True: "doubtful", False: "sure", None: "unknown"}
        assert [
            [len(page.all("p", **{"class": one})) for one in kind.values()] for page in pages
        ] == [[one == doubtful for one in kind] for doubtful in found]
        (rule,) = [
            line
            for line in log.splitlines()
            if "limit" in line or "threshold" in line or "No answer" in line
        ]
        assert all(rule in page.text for page in pages)
        return found

    assert flagged("--max-error", "0.05") == [False] * 4 + [True] * 4
    assert flagged("--max-error", "0.2") == [False] * 5 + [True] * 3
    assert flagged() == [None] * 8
    numpy.savez(
        folder / "predictions-val.npz",
        max_probability=doubts,
        label=numpy.zeros(8, int),
        top=1 - wrong.astype(int),
    )
    assert flagged("--max-error", "0.05") == [True] * 8
    (folder / "predictions-val.npz").unlink()
    assert flagged() == [None] * 8
    assert (
        demo_app.main(["--run", str(folder), "--max-error", "0.05"]) == 2
        and "--max-error needs" in capsys.readouterr().err
    )


def test_names_are_text_whatever_they_hold(ask):
    page = ask(classes="\n".join(NASTY), picture="example-1")
    assert not page.all("script") and {
        name for name, _ in page.tables["Most probable classes, all templates fused"]
    } == set(NASTY)
    page = ask(sent=("<b>.png", b"no picture"), classes="\n".join(NASTY))
    assert (
        not page.all("b")
        and not page.all("script")
        and "'<b>.png' cannot be read as a picture" in page.error
    )

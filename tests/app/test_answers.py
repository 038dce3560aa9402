"""demo_app.py: what the page says of a run's answers."""

import json
import re
from types import SimpleNamespace

import numpy
import pytest

import demo_app
import predict
from app.answer import describe, percent
from tests.app.conftest import NASTY, Page, make_demo, png
from tests.conftest import FEW, GOLDEN, slow_but_for
from tests.runs import CLASSES, call, write_validation
from tests.trainers.test_every_trainer import TRAINERS
from trainers import PromptedClassifier
from trainers.classifier.prompted import Answers
from trainers.evaluation.doubts import NOT_KNOWN, Judge, decimal

ANSWERS, MEASURES = GOLDEN["answers"], ("vacuity", "conflict")


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


@pytest.mark.parametrize("words", [percent, decimal])
def test_shares_are_never_called_certain_or_impossible(words):
    for value, shown in ANSWERS[words.__name__].items():
        assert words(value) == shown


@pytest.mark.parametrize("uncertainty, max_error, own, verdict, words", ANSWERS["verdicts"])
def test_the_verdict_is_sure_only_where_a_limit_was_measured(
    tmp_path, uncertainty, max_error, own, verdict, words
):
    write_validation(tmp_path, [0.2, 0.3], [0, 1])
    judge = Judge(str(tmp_path), max_error, confidence=0.5)
    found = describe(answers_of(1 - uncertainty), judge if own else None)
    assert found["verdict"] == (verdict or NOT_KNOWN) and words in found["basis"]
    assert found["doubtful"] is (verdict and "not sure" in verdict)


# ---- the page says what the classifier says ----


@slow_but_for(FEW, TRAINERS)
def test_every_trainers_answer_is_on_the_page(trained, data_root, name):
    demo = make_demo(trained(name), data_root)
    page = Page(demo_app.make_app(demo).test_client().get("/?picture=example-3").text)
    path, truth = demo.examples["example-3"]
    answers = demo.classifier.predict(path)

    def rows(probabilities, number):
        pairs = sorted(zip(CLASSES, probabilities), key=lambda pair: -pair[1])
        return [(label, percent(probability)) for label, probability in pairs[:number]]

    fused = rows(answers.probabilities[0], 5)
    votes = [] if answers.votes is None else [rows(vote, 3) for vote in answers.votes[0]]
    title = "Most probable classes" + (", all votes fused" if votes else "")
    of_votes = {}
    for number, vote in enumerate(votes):
        voter = answers.voters[number].capitalize()
        weight = percent(answers.vote_weights[number])
        vacuity = decimal(answers.vote_vacuity[0, number])
        of_votes[f"{voter}, weight {weight}, vacuity {vacuity}"] = vote
    assert page.tables == {title: fused, **of_votes} and page.error is None
    assert any("Image classifier" in caption for caption in of_votes) == (name == "CDCGDA")
    tested, label = demo.classifier.record["metrics"]["test"], answers.labels[0]
    said = [
        " ".join(fused[0]),
        f"Right on {tested['accuracy']:.1f} % of {tested['images']} test images",
        f"{'Right' if label == truth else 'Wrong'}: the data set says {truth}.",
    ]
    if answers.vacuity is not None:
        said += [f"{name.title()} {decimal(getattr(answers, name)[0])} How" for name in MEASURES]
        agreeing = sum(vote[0][0] == label for vote in votes)
        said.append(f"Alone, {agreeing} of {len(votes)} would answer {label}.")
    assert all(line in page.text for line in said)
    shown = [name.title() in page.text for name in MEASURES]
    assert shown == [answers.vacuity is not None] * 2
    assert page.all("img", alt=f"The picture that was asked about, an example of {truth}")


def test_an_uploaded_picture_is_answered_and_kept_for_the_next_question(
    ask, demo, folder, data_root
):
    path = f"{data_root}/dtd/images/woven/13.png"
    first = ask(sent=("woven.png", png(path)), classes="\r\n".join(CLASSES))
    (kept,) = first.all("input", name="kept")
    second = ask(kept=kept["value"], classes=" cat \r\n\r\n\tdog\r\n")
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


@pytest.mark.parametrize("trainer", ["LinearProbe", "CDC"])
def test_another_order_of_the_names_changes_nothing_on_the_page(trained, data_root, trainer):
    """Not even the verdict. What was added is named where it is answered in another way."""
    demo = make_demo(trained(trainer), data_root, max_error=0.5)
    client = demo_app.make_app(demo).test_client()

    def asked(names):
        form = {"classes": "\n".join(names), "picture": "example-2"}
        return Page(client.post("/", data=form).text)

    first = asked(CLASSES)
    turned = asked(CLASSES[::-1])
    assert turned.tables == first.tables
    basis = "wrong among the validation images with at most that"
    assert basis in first.text and basis in turned.text and NOT_KNOWN not in turned.text
    assert "Not trained: sun." not in turned.text
    assert ("Not trained: sun." in asked([*CLASSES, "sun"]).text) == (trainer == "LinearProbe")


def test_its_verdict_is_that_of_predict_in_the_same_words(copied, data_root, capsys, monkeypatch):
    folder = copied("CoOp")
    paths = [path for path, _ in make_demo(folder, data_root).examples.values()]
    doubts = PromptedClassifier.load(folder).predict(paths).uncertainty
    pages, kinds = [], {True: "doubtful", False: "sure", None: "unknown"}

    def serve(app, port):
        for number in range(1, 9):
            pages.append(Page(app.test_client().get(f"/?picture=example-{number}").text))
        return SimpleNamespace(effective_port=port, run=lambda: None)

    monkeypatch.setattr(demo_app, "make_server", serve)

    def flagged(*options):
        """What predict.py flags of the examples, after it was found to be what the page says of
        them, in the same words."""
        pages.clear()
        assert call(demo_app.main, "--run", folder, "--root", data_root, *options) == 0
        capsys.readouterr()
        assert call(predict.main, "--run", folder, "--json", *options, *paths) == 0
        out, log = capsys.readouterr()
        found = [row["doubtful"] for row in json.loads(out)]
        for page, doubtful in zip(pages, found, strict=True):
            shown = [name for name in kinds.values() if page.all("p", **{"class": name})]
            assert shown == [kinds[doubtful]]
        (rule,) = re.findall(".*(?:limit|threshold|No answer).*", log)
        assert all(rule in page.text for page in pages)
        return found

    most_doubted = [False] * 4 + [True] * 4
    write_validation(folder, doubts, most_doubted)
    bold = ("--confidence", "0.5")
    assert flagged("--max-error", "0.3", *bold) == most_doubted
    assert flagged("--max-error", "0.6", *bold) == [False] * 5 + [True] * 3
    assert flagged("--max-error", "0.3") == [True] * 8
    assert flagged() == [None] * 8
    write_validation(folder, doubts, most_doubted[::-1])
    assert flagged("--max-error", "0.3", *bold) == [True] * 8
    (folder / "predictions-val.npz").unlink()
    assert flagged() == [None] * 8
    assert call(demo_app.main, "--run", folder, "--max-error", "0.05") == 2
    assert "--max-error needs" in capsys.readouterr().err


def test_names_are_text_whatever_they_hold(ask):
    page = ask(classes="\n".join(NASTY), picture="example-1")
    (rows,) = (page.tables[title] for title in page.tables if "fused" in title)
    assert not page.all("script") and {name for name, _ in rows} == set(NASTY)
    page = ask(sent=("<b>.png", b"no picture"), classes="\n".join(NASTY))
    assert not page.all("b") and not page.all("script")
    assert "can't be read" in page.error

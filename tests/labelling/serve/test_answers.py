"""cdc-serve: what the page says of a run's answers."""

import io
import json
import re
from types import SimpleNamespace

import numpy
import pytest
import torch

import predict
from labelling import PromptedClassifier
from labelling.answer import single_label_answers
from labelling.commands import serve as cdc_serve
from labelling.rules import NOT_KNOWN
from labelling.serve import page as page_of
from labelling.serve.answer import describe, percent
from labelling.serve.page import make_app
from labelling.threshold import threshold_of
from tests.conftest import GOLDEN, TRAINERS, slow_but_for
from tests.labelling.serve.conftest import NASTY, Page, make_demo, png
from tests.runs import CLASSES, call, write_validation
from trainers.evaluation.figures import decimal
from trainers.evaluation.prediction import Prediction

ANSWERS = GOLDEN["answers"]


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
    threshold = threshold_of(str(tmp_path), max_error, confidence=0.5)
    shares = numpy.array([[1 - uncertainty, uncertainty]], dtype="float32")
    rule = threshold if own else None
    prediction = Prediction(torch.from_numpy(shares))
    answers = single_label_answers(prediction, ["a", "b"], [None], rule, note="")
    found = describe(answers, rule, record={})
    assert found["verdict"] == (verdict or NOT_KNOWN)
    assert words in found["basis"]
    assert found["doubtful"] is (verdict and "not sure" in verdict)


# ---- the page says what the classifier says ----


@slow_but_for(("CDC", "CoOp"), TRAINERS)  # with votes, and without
def test_every_trainers_answer_is_on_the_page(trained, data_root, name):
    demo = make_demo(trained(name), data_root)
    page = Page(make_app(demo).test_client().get("/?picture=example-3").text)
    path, truth = demo.examples["example-3"]
    answers = demo.classifier.predict(path)

    def rows(probabilities, number):
        pairs = sorted(zip(CLASSES, probabilities), key=lambda pair: -pair[1])
        return [(label, percent(probability)) for label, probability in pairs[:number]]

    fused = rows(answers.probabilities[0], 5)
    title, of_votes = "Most probable classes", {}
    if answers.votes is not None:
        title += ", all votes fused"
        for number, vote in enumerate(answers.votes[0]):
            voter = answers.voters[number].capitalize()
            weight = percent(answers.vote_weights[number])
            vacuity = decimal(answers.vote_vacuity[0, number])
            of_votes[f"{voter}, weight {weight}, vacuity {vacuity}"] = rows(vote, 3)
    assert page.tables == {title: fused, **of_votes}
    tested, label = demo.classifier.record["metrics"]["test"], answers.labels[0]
    verdict = "Right" if label == truth else "Wrong"
    assert " ".join(fused[0]) in page.text
    assert f"Accuracy: {tested['accuracy']:.1f} % of {tested['images']} test images" in page.text
    assert f"{verdict}: the data set says {truth}." in page.text
    for measure in ("vacuity", "conflict"):
        value = getattr(answers, measure)
        assert (measure.title() in page.text) == (value is not None)
        assert value is None or f"{measure.title()} {decimal(value[0])} How" in page.text


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
    assert NOT_KNOWN not in first.text
    assert NOT_KNOWN in second.text, "the limit is that of the run's own classes"


def test_of_several_pictures_the_first_is_answered_and_the_others_can_be_chosen(trained, data_root):
    demo = make_demo(trained("CDC"), data_root)
    client = make_app(demo).test_client()
    paths = [f"{data_root}/dtd/images/{name}/13.png" for name in CLASSES[:3]]
    files = [(io.BytesIO(png(path)), f"{number}.png") for number, path in enumerate(paths)]
    page = Page(client.post("/", data={"upload": files}).text)
    keys = [key for key, _, _ in demo.sent]
    buttons = [one["value"] for one in page.all("button", name="picture")]
    assert buttons == [*keys, *demo.examples]
    for key, path in zip(keys, paths):
        answers = demo.classifier.predict(path)
        said = f"{answers.labels[0]} {percent(answers.probabilities.max())}"
        assert said in page.text
        assert page.all("input", name="kept", value=key)
        assert f"/pictures/{key}" in [one["src"] for one in page.all("img")]
        assert client.get(f"/pictures/{key}").mimetype == "image/png"
        following = keys[(keys.index(key) + 1) % len(keys)]
        page = Page(client.post("/", data={"picture": following}).text)


@pytest.mark.parametrize("trainer", ["LinearProbe", "CDC"])
def test_another_order_of_the_names_changes_nothing_on_the_page(trained, data_root, trainer):
    """Not even the verdict. What was added is named where it is answered in another way."""
    demo = make_demo(trained(trainer), data_root, max_error=0.5)
    client = make_app(demo).test_client()

    def asked(names):
        form = {"classes": "\n".join(names), "picture": "example-2"}
        return Page(client.post("/", data=form).text)

    first, turned = asked(CLASSES), asked(CLASSES[::-1])
    assert turned.tables == first.tables
    assert NOT_KNOWN not in turned.text
    assert "Not trained: sun." not in turned.text
    assert ("Not trained: sun." in asked([*CLASSES, "sun"]).text) == (trainer == "LinearProbe")


def test_its_verdict_is_that_of_predict_in_the_same_words(copied, data_root, capsys, monkeypatch):
    folder = copied("CoOp")
    paths = [path for path, _ in make_demo(folder, data_root).examples.values()]
    doubts = PromptedClassifier.load(folder).predict(paths).uncertainty
    pages, kinds = [], {True: "doubtful", False: "sure", None: "unknown"}

    def serve(app, port, host):
        for number in range(1, 9):
            pages.append(Page(app.test_client().get(f"/?picture=example-{number}").text))
        return SimpleNamespace(effective_port=port, run=lambda: None)

    monkeypatch.setattr(page_of, "make_server", serve)

    def flagged(*options):
        """What predict.py flags of the examples, after the page was found to say the same."""
        pages.clear()
        assert call(cdc_serve.main, "--run", folder, "--root", data_root, *options) == 0
        capsys.readouterr()
        assert call(predict.main, "--run", folder, "--json", "--explain", *options, *paths) == 0
        out, log = capsys.readouterr()
        found = [row["doubtful"] for row in json.loads(out)]
        (rule,) = re.findall(".*(?:limit|threshold|No answer).*", log)
        for page, doubtful in zip(pages, found, strict=True):
            assert page.all("p", **{"class": kinds[doubtful]})
            assert rule in page.text
        return found

    most_doubted = [False] * 4 + [True] * 4
    write_validation(folder, doubts, most_doubted)
    assert flagged("--max-error", "0.3", "--confidence", "0.5") == most_doubted
    assert flagged("--max-error", "0.3") == [True] * 8, "no limit promises that"
    assert flagged() == [None] * 8


def test_names_are_text_whatever_they_hold(ask):
    page = ask(classes="\n".join(NASTY), picture="example-1")
    (rows,) = (page.tables[title] for title in page.tables if "fused" in title)
    assert {name for name, _ in rows} == set(NASTY)
    assert not page.all("script")
    page = ask(sent=("<b>.png", b"no picture"), classes="\n".join(NASTY))
    assert not page.all("b")
    assert "can't be read" in page.error

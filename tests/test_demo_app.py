"""demo_app.py: what the page says of a run's answers, and every way to ask for the wrong thing."""

import io
import json
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from threading import Event, Thread
from types import SimpleNamespace
from urllib.request import urlopen

import numpy
import pytest
from PIL import Image

import demo_app
import predict
from app import demo as asked
from app.answer import describe, percent
from tests.conftest import in_turn
from tests.trainers.test_every_trainer import BASE, NEW, TRAINERS
from trainers import PromptedClassifier
from trainers.classifier.prompted import Answers
from trainers.common.errors import UserError
from trainers.evaluation.doubts import NOT_KNOWN, Judge, decimal

CLASSES = ["banded", "dotted", "striped", "woven", "zigzagged", "grid"]
NASTY = ['<script>alert("1")</script>', "salt & 'pepper'", "a" * 60]


class Page(HTMLParser):
    """The page's tags with their attributes, its text, and its tables of bars: caption → list of (class name, probability)."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.pieces, self.tables = [], [], {}
        self.feed(source)
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.pieces.append(data)
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if tag == "caption" and data.strip():
            self.tables[data] = self.rows = []
        elif tag == "th" and attributes["scope"] == "row" and data.strip():
            self.rows.append((data,))
        elif tag == "td" and data.strip():
            self.rows[-1] += (data,)

    def all(self, tag, **wanted):
        return [
            attributes
            for found, attributes in self.tags
            if found == tag and wanted.items() <= attributes.items()
        ]

    @property
    def error(self):
        """The message, which the title repeats, or None."""
        found = [
            index
            for index, (tag, attributes) in enumerate(self.tags)
            if attributes.get("role") == "alert"
        ]
        return re.search(r"Error: (.*?) – ", self.text)[1] if found else None


def make_demo(folder, data_root, max_error=None):
    classifier = PromptedClassifier.load(folder)
    return demo_app.Demo(
        classifier,
        Judge(folder, max_error),
        demo_app.find_examples(folder, classifier.record, data_root),
    )


@pytest.fixture(scope="module")
def folder(trained):
    return str(trained("CDC")[1])


@pytest.fixture(scope="module")
def demo(folder, data_root):
    return make_demo(folder, data_root, max_error=0.5)


@pytest.fixture
def ask(demo):
    """Gets the page, or, with ``form``, asks it: ``ask(classes="a\\nb", picture="example-1")`` → ``Page``; ``sent``: name, content."""
    client = demo_app.make_app(demo).test_client()

    def start(sent=None, path="/", status=200, **form):
        if sent is not None:
            form["upload"] = (io.BytesIO(sent[1]), sent[0])
        response = (
            client.post(path, data=form, content_type="multipart/form-data")
            if form
            else client.get(path)
        )
        assert response.status_code == status
        return Page(response.text)

    return start


def png(path):
    with open(path, "rb") as file:
        return file.read()


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


@pytest.mark.parametrize(
    "text, message",
    [
        (" \n\n", "there is no class name: give at least two"),
        ("cat", "there is only the class name 'cat': give at least two"),
        ("cat\ndog\ncat", "the class name 'cat' is there twice: remove one"),
        (
            "hot dog\ncat\nHot_Dog",
            "the class name 'Hot_Dog' is there twice, once as 'hot dog': remove one",
        ),
    ],
)
def test_names_that_cannot_be_told_apart_are_refused(text, message):
    with pytest.raises(UserError, match=f"^{message}"):
        asked.class_names(text, CLASSES)


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


# ---- what can't work ----


@pytest.mark.parametrize(
    "form, message, field",
    [
        (
            {"sent": ("notes.txt", b"not a picture")},
            "'notes.txt' cannot be read as a picture (it is not an image of a known format): choose",
            "upload",
        ),
        (
            {"sent": ("cut.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 30)},
            "'cut.png' cannot be read as a picture",
            "upload",
        ),
        ({"sent": ("empty.png", b"")}, "'empty.png' cannot be read as a picture", "upload"),
        ({"classes": "cat\ndog"}, "There is no picture: choose one, or take an example.", "upload"),
        ({"kept": "0123"}, "This picture is not kept any more: choose it again.", "upload"),
        (
            {"picture": "example-99"},
            "This picture is not kept any more: choose it again.",
            "upload",
        ),
        (
            {"picture": "example-1", "classes": " \r\n"},
            "There is no class name: give at least two, one a line.",
            "classes",
        ),
        (
            {"picture": "example-1", "classes": "cat\ndog\ncat"},
            "The class name 'cat' is there twice: remove one.",
            "classes",
        ),
        (
            {"picture": "example-1", "classes": f"cat\n{'very ' * 90}long"},
            "These class names can't be asked for: the class name 'very very",
            "classes",
        ),
    ],
)
def test_mistakes_are_named_and_the_page_keeps_working(ask, form, message, field):
    page = ask(**form)
    marked = [attributes for _, attributes in page.tags if "aria-invalid" in attributes]
    assert page.error.startswith(message) and not page.tables
    assert (
        [one["name"] for one in marked] == [field]
        and marked[0]["aria-describedby"].endswith(" error")
        and page.all("p", id="error")
    )
    if "classes" in form:
        assert all(
            name.strip() in page.text for name in form["classes"].splitlines()
        )  # nothing has to be typed again
    assert [one["value"] for one in page.all("input", name="kept")] == (
        ["example-1"] if field == "classes" else []
    )
    assert ask(picture="example-1", classes="cat\ndog").tables


def test_what_is_too_large_is_named(ask, data_root, monkeypatch):
    page = ask(picture="example-1", classes="x\n" * 300_000, status=413)
    assert page.error == "That is more text than the page takes: give fewer class names."
    monkeypatch.setattr(asked, "MAX_BYTES", 2**20)
    assert (
        ask(sent=("a.png", bytes(2**20 + 1))).error
        == "'a.png' is larger than 1 MB: choose a smaller picture."
    )
    assert ask(sent=("a.png", png(f"{data_root}/dtd/images/grid/00.png"))).tables


def test_class_specific_contexts_are_asked_for_their_own_classes_only(trained, data_root):
    client = demo_app.make_app(
        make_demo(trained("CoOp", "TRAINER.COOP.CSC", "True")[1], data_root)
    ).test_client()
    page = Page(client.post("/", data={"picture": "example-1", "classes": "cat\ndog"}).text)
    assert (
        "These class names can't be asked for: this run's contexts are class-specific" in page.error
    )
    assert Page(
        client.post("/", data={"picture": "example-1", "classes": "\n".join(CLASSES)}).text
    ).tables


# ---- pictures ----


def test_only_the_last_pictures_are_kept_and_shown_small(data_root):
    pictures = asked.Pictures([])
    keys = []
    for number in [
        *range(asked.KEPT),
        0,
        asked.KEPT,
    ]:  # the first one once more, so the second one is the oldest
        buffer = io.BytesIO()
        Image.new("RGB", (1000, 500), (number, 0, 0)).save(buffer, format="PNG")
        buffer.seek(0)
        keys.append(pictures.keep(SimpleNamespace(stream=buffer, filename="a.png")))
    assert len(set(keys)) == asked.KEPT + 1 == len(pictures.sent) + 1
    with pytest.raises(UserError, match="this picture is not kept any more"):
        pictures.open(keys[1])
    assert pictures.open(keys[0]).getpixel((0, 0)) == (0, 0, 0) and pictures.open(keys[2]).getpixel(
        (0, 0)
    ) == (2, 0, 0)
    assert Image.open(io.BytesIO(pictures.shown(keys[2]))).size == (asked.PIXELS, asked.PIXELS // 2)


def test_examples_are_test_images_from_the_least_to_the_most_doubted(folder, demo, data_root):
    paths, truths = zip(*demo.pictures.examples.values())
    assert len(set(paths)) == asked.EXAMPLES
    assert all(
        path.split("/")[-2] == truth and int(path[-6:-4]) >= 11
        for path, truth in zip(paths, truths)
    )  # 8 train, 3 val, 4 test
    with numpy.load(f"{folder}/predictions-test.npz") as kept:
        doubt = dict(zip(kept["image"].tolist(), kept["max_probability"].tolist()))
    found = [doubt["/".join(path.split("/")[-2:])] for path in paths]
    assert found == sorted(found) and (found[0], found[-1]) == (
        min(doubt.values()),
        max(doubt.values()),
    )


def test_without_its_images_a_run_has_no_examples(
    folder, demo, trained, data_root, tmp_path, caplog
):
    record = demo.classifier.record
    assert demo_app.find_examples(folder, record, tmp_path) == [] and "No examples: " in caplog.text
    untested = trained("CoOp", "TEST.NO_TEST", "True")[1]
    assert (
        demo_app.find_examples(untested, PromptedClassifier.load(untested).record, data_root) == []
    )
    page = Page(
        demo_app.make_app(demo_app.Demo(demo.classifier, demo.judge)).test_client().get("/").text
    )
    assert not page.all("fieldset") and "example" not in page.text
    with pytest.raises(UserError, match="is not a folder"):
        demo_app.find_examples(folder, record, tmp_path / "nowhere")


# ---- the server and the command ----


def test_other_hosts_names_get_nothing_and_the_browser_is_told_to_ask_nobody(demo):
    client = demo_app.make_app(demo).test_client()
    assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 400
    for path in ("/", "/pictures/example-1", "/static/style.css"):
        response = client.get(path, headers={"Host": "localhost:8000"})
        assert response.status_code == 200 and response.headers[
            "Content-Security-Policy"
        ].startswith("default-src 'none'; img-src 'self'")
        assert "http" not in response.headers["Content-Security-Policy"]
    assert client.get("/pictures/nothing").status_code == 404


def test_forms_of_other_sites_are_refused(demo):
    client = demo_app.make_app(demo).test_client()
    for origin, status in (
        ("http://elsewhere.example", 403),
        ("null", 403),
        ("http://localhost", 200),
        (None, 200),
    ):
        headers = {} if origin is None else {"Origin": origin}
        assert (
            client.post(
                "/", data={"picture": "example-1"}, headers={"Host": "localhost", **headers}
            ).status_code
            == status
        )


def test_others_are_answered_while_one_question_is_computed(demo, monkeypatch):
    server, started, goes_on = demo_app.make_server(demo_app.make_app(demo), 0), Event(), Event()
    compute, address = demo.classifier.predict, f"http://127.0.0.1:{server.effective_port}/"

    def slowly(image):
        started.set()
        assert goes_on.wait(30)
        return compute(image)

    monkeypatch.setattr(demo.classifier, "predict", slowly)
    Thread(target=server.run, daemon=True).start()
    with ThreadPoolExecutor() as pool:
        question = pool.submit(urlopen, address, b"picture=example-1", 30)
        assert started.wait(30)
        try:
            for path in ("", "pictures/example-1", "static/style.css"):
                assert urlopen(address + path, timeout=30).status == 200
            assert not question.done()
        finally:
            goes_on.set()
        assert question.result().status == 200
    server.close()


def test_what_cannot_be_served_is_one_line_and_exit_code_2(
    folder, run, trained, demo, tmp_path, capsys, monkeypatch
):
    _, _, tested = run(
        "CDC",
        *NEW,
        name="test",
        flags=("--eval-only", "--model-dir", str(trained("CDC", *BASE)[1])),
    )
    server = demo_app.make_server(demo_app.make_app(demo), 0)
    assert server.socket.getsockname() == ("127.0.0.1", int(server.effective_port))
    taken = f"--port {server.effective_port}"

    def refused(*arguments):
        capsys.readouterr()  # what a training has printed
        assert demo_app.main(list(map(str, arguments))) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert refused("--run", tmp_path / "nowhere").startswith(
        f"error: {tmp_path / 'nowhere'} holds no finished run"
    )
    assert refused("--run", tested).startswith(
        f"error: {tested} holds no prompts: it tested those of another run"
    )
    assert (
        refused("--run", folder, "--max-error", "5")
        == "error: --max-error is 5.0, it is a share: at least 0 and below 1"
    )
    assert refused("--run", folder, "--root", tmp_path / "nowhere").startswith(
        f"error: --root {tmp_path / 'nowhere'} is not a folder"
    )
    assert refused("--run", folder, *taken.split()).startswith(
        f"error: {taken} cannot be used (Address already in use): give another"
    )
    server.close()
    for port in (65536, -1):
        assert refused("--run", folder, "--port", port).startswith(
            f"error: --port is {port}, it must be between 0"
        )
    for package in ("waitress", "flask"):
        monkeypatch.setitem(sys.modules, package, None)
        assert (
            refused("--run", folder)
            == f"error: the page needs the package {package}: pip install -e '.[app]'"
        )

"""demo_app.py: every way to ask for the wrong thing, which pictures are kept, and who is served."""

import io
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event, Thread
from types import SimpleNamespace
from urllib.request import urlopen

import numpy
import pytest
from PIL import Image

import demo_app
from app import demo as asked
from app.page import MAX_REQUEST
from tests.app.conftest import Page
from tests.conftest import GOLDEN
from tests.runs import PATIENCE, prompts_of, record_of, refuses
from tests.trainers.test_every_trainer import BASE, NEW

MISTAKES = GOLDEN["messages"]["page"]


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named_and_the_page_keeps_working(ask, message):
    form, field = dict(MISTAKES[message]["form"]), MISTAKES[message]["field"]
    if "sent" in form:
        form["sent"] = (form["sent"], b"no picture")
    page = ask(**form)
    (marked,) = (attributes for _, attributes in page.tags if "aria-invalid" in attributes)
    assert page.error.startswith(message) and not page.tables
    assert marked["name"] == field and marked["aria-describedby"].endswith(" error")
    assert page.all("p", id="error")
    for name in form.get("classes", "").splitlines():
        assert name.strip() in page.text, "nothing has to be typed again"
    kept = [one["value"] for one in page.all("input", name="kept")]
    assert kept == ["example-1"] * (field == "classes")
    assert ask(picture="example-1", classes="cat\ndog").tables


# ---- pictures ----


def test_only_the_last_pictures_are_kept_and_shown_small(demo):
    pictures, keys = asked.Demo(demo.classifier, demo.judge), []
    for number in range(asked.KEPT + 1):
        buffer = io.BytesIO()
        Image.new("RGB", (1000, 500), (number, 0, 0)).save(buffer, format="PNG")
        buffer.seek(0)
        keys.append(pictures.keep(SimpleNamespace(stream=buffer, filename="a.png")))
    with refuses("this picture is not kept any more"):
        pictures.open(keys[0])
    for number in range(1, asked.KEPT + 1):
        assert pictures.open(keys[number]).getpixel((0, 0)) == (number, 0, 0)
    assert Image.open(io.BytesIO(pictures.shown(keys[2]))).size == (asked.PIXELS, asked.PIXELS // 2)


def test_examples_are_test_images_from_the_least_to_the_most_doubted(folder, demo):
    pairs = [(path.split("/")[-2:], truth) for path, truth in demo.examples.values()]
    assert all(name == truth for (name, _), truth in pairs)
    with numpy.load(f"{folder}/predictions-test.npz") as kept:
        doubts = dict(zip(kept["image"].tolist(), kept["max_probability"].tolist()))
    found = [doubts.pop("/".join(place)) for place, _ in pairs]  # each once
    assert found == sorted(found) and len(found) == asked.EXAMPLES
    assert found[0] <= min(doubts.values()) and found[-1] >= max(doubts.values())


def test_without_its_images_a_run_has_no_examples(
    folder, demo, trained, data_root, tmp_path, caplog
):
    record, find = demo.classifier.record, demo_app.find_examples
    assert find(folder, record, tmp_path) == [] and "No examples: " in caplog.text
    untested = trained("CoOp", "TEST.NO_TEST", "True")
    assert find(untested, record_of(untested), data_root) == []
    bare = demo_app.make_app(demo_app.Demo(demo.classifier, demo.judge))
    page = Page(bare.test_client().get("/").text)
    assert not page.all("fieldset") and "example" not in page.text
    with refuses("is not a folder"):
        find(folder, record, tmp_path / "nowhere")


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


FORMS = [  # what a browser says of a form's origin, and whether it is answered
    ({}, 200),
    ({"Origin": "http://localhost"}, 200),
    ({"Referer": "http://localhost/?picture=example-1", "Sec-Fetch-Site": "same-origin"}, 200),
    ({"Sec-Fetch-Site": "none"}, 200),
    ({"Origin": "http://elsewhere.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://localhost:1"}, 403),
    ({"Referer": "http://elsewhere.example/localhost/"}, 403),
    ({"Referer": "http://localhost.elsewhere.example/"}, 403),
    ({"Referer": "https://localhost/"}, 403),
    ({"Referer": "http://[bad"}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Origin": "http://localhost", "Referer": "http://elsewhere.example/"}, 403),
]


@pytest.mark.parametrize("headers, status", FORMS)
def test_forms_of_other_sites_are_refused(demo, headers, status):
    client = demo_app.make_app(demo).test_client()
    headers = {"Host": "localhost", **headers}
    answer = client.post("/", data={"picture": "example-1"}, headers=headers)
    assert answer.status_code == status


def test_connections_that_say_nothing_keep_nobody_waiting(demo):
    server = demo_app.make_server(demo_app.make_app(demo), 0)
    Thread(target=server.run, daemon=True).start()
    place = "127.0.0.1", server.effective_port
    with ExitStack() as stack:
        for _ in range(120):
            half_sent = stack.enter_context(socket.create_connection(place, PATIENCE))
            half_sent.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        assert urlopen(f"http://{place[0]}:{place[1]}/", timeout=60).status == 200
    server.close()


def test_others_are_answered_while_one_question_is_computed(demo, monkeypatch):
    server, started, goes_on = demo_app.make_server(demo_app.make_app(demo), 0), Event(), Event()
    compute, address = demo.classifier.predict, f"http://127.0.0.1:{server.effective_port}/"

    def slowly(image):
        started.set()
        assert goes_on.wait(PATIENCE)
        return compute(image)

    monkeypatch.setattr(demo.classifier, "predict", slowly)
    Thread(target=server.run, daemon=True).start()
    with ThreadPoolExecutor() as pool:
        question = pool.submit(urlopen, address, b"picture=example-1", PATIENCE)
        assert started.wait(PATIENCE)
        try:
            for path in ("", "pictures/example-1", "static/style.css"):
                assert urlopen(address + path, timeout=PATIENCE).status == 200
            assert not question.done()
        finally:
            goes_on.set()
        assert question.result().status == 200
    with pytest.raises(OSError):
        urlopen(address, bytes(MAX_REQUEST + 1), PATIENCE)
    server.close()


def test_what_cannot_be_served_is_one_line_and_exit_code_2(
    folder, run, trained, demo, tmp_path, error_of
):
    tested = run("CDC", *NEW, name="test", flags=prompts_of(trained("CDC", *BASE)))[2]
    server, nowhere = demo_app.make_server(demo_app.make_app(demo), 0), tmp_path / "nowhere"
    taken = f"--port {server.effective_port}"
    own = ("--run", folder)
    for words, message in (
        (("--run", nowhere), f"{nowhere} holds no finished run"),
        (("--run", tested), f"{tested} holds no prompts: it tested those of another run"),
        ((*own, "--max-error", 5), "--max-error is 5.0, it is a share: above 0 and below 1"),
        ((*own, "--root", nowhere), f"--root {nowhere} is not a folder"),
        ((*own, *taken.split()), f"{taken} cannot be used (Address already in use): give another"),
        ((*own, "--port", 65536), "--port is 65536, it must be between 0"),
        ((*own, "--port", -1), "--port is -1, it must be between 0"),
    ):
        assert error_of(demo_app.main, *words).startswith(f"error: {message}")
    server.close()

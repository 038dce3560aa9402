"""demo_app.py: every way to ask for the wrong thing, which pictures are kept, and who is served."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from types import SimpleNamespace
from urllib.request import urlopen

import numpy
import pytest
import yaml
from PIL import Image

import demo_app
from app import demo as asked
from tests.app.conftest import CLASSES, Page, make_demo, png
from tests.runs import REPOSITORY
from tests.trainers.test_every_trainer import BASE, NEW
from trainers import PromptedClassifier
from trainers.common.errors import UserError

GOLDEN = yaml.safe_load((REPOSITORY / "tests" / "golden" / "messages.yaml").read_text())["page"]


@pytest.mark.parametrize("message", GOLDEN)
def test_mistakes_are_named_and_the_page_keeps_working(ask, message):
    form, field = dict(GOLDEN[message]["form"]), GOLDEN[message]["field"]
    if "sent" in form:
        form["sent"] = (form["sent"], b"no picture")
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

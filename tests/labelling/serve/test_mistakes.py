"""cdc-serve: every way to ask for the wrong thing, which pictures are kept, and who is served."""

import io
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from urllib.request import urlopen

import numpy
import pytest
from PIL import Image
from werkzeug.datastructures import FileStorage

from labelling.commands import serve as cdc_serve
from labelling.serve import demo as asked
from labelling.serve.demo import Demo, find_examples
from labelling.serve.page import MAX_REQUEST, make_app, make_server
from tests.conftest import GOLDEN
from tests.labelling.serve.conftest import Page
from tests.runs import PATIENCE, refuses

MISTAKES = GOLDEN["messages"]["page"]


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named_and_the_page_keeps_working(ask, message):
    form, field = dict(MISTAKES[message]["form"]), MISTAKES[message]["field"]
    if "sent" in form:
        form["sent"] = (form["sent"], b"no picture")
    page = ask(**form)
    assert page.error.startswith(message)
    assert not page.tables
    (marked,) = (attributes for _, attributes in page.tags if "aria-invalid" in attributes)
    assert marked["name"] == field
    for name in form.get("classes", "").splitlines():
        assert name.strip() in page.text, "nothing has to be typed again"
    kept = [one["value"] for one in page.all("input", name="kept")]
    assert kept == ["example-1"] * (field == "classes")
    assert ask(picture="example-1", classes="cat\ndog").tables


@pytest.mark.parametrize("name, is_read", [(b"caf\xc3\xa9.png", True), (b"caf\xe9.png", False)])
def test_a_picture_whose_name_is_no_text_is_told_by_its_name(demo, name, is_read):
    """A browser sends UTF-8; Flask leaves out all of a form in which a name is something else."""
    head = b'--B\r\nContent-Disposition: form-data; name="upload"; filename="' + name + b'"\r\n\r\n'
    body = head + picture(7).read() + b"\r\n--B--\r\n"
    client = make_app(demo).test_client()
    page = Page(client.post("/", data=body, content_type="multipart/form-data; boundary=B").text)
    if is_read:
        assert page.error is None
        assert page.tables
    else:
        assert "a picture's name is not UTF-8: rename it" in page.error


# ---- pictures ----


def picture(number):
    """A PNG as a browser sends it, told from others by its red."""
    file = io.BytesIO()
    Image.new("RGB", (1000, 500), (number, 0, 0)).save(file, format="PNG")
    file.seek(0)
    return FileStorage(file, f"{number}.png")


def test_only_the_last_pictures_are_kept_and_shown_small(demo):
    pictures = asked.Demo(demo.classifier)
    keys = [pictures.keep_uploads([picture(number)]) for number in range(asked.KEPT_UPLOADS + 1)]
    with refuses("this picture is not kept any more"):
        pictures.open(keys[0])
    assert pictures.open(keys[1]).getpixel((0, 0)) == (1, 0, 0)
    assert Image.open(io.BytesIO(pictures.shown(keys[2]))).size == (asked.PIXELS, asked.PIXELS // 2)


def test_of_several_pictures_all_are_kept_or_none(demo):
    pictures = asked.Demo(demo.classifier)
    with refuses("there are 9 pictures: give at most 8 here"):
        pictures.keep_uploads([picture(number) for number in range(asked.KEPT_UPLOADS + 1)])
    with refuses("image notes.png can't be read"):
        pictures.keep_uploads([picture(1), FileStorage(io.BytesIO(b"no picture"), "notes.png")])
    assert not pictures.sent
    first = pictures.keep_uploads([picture(number) for number in range(asked.KEPT_UPLOADS)])
    assert len(pictures.sent) == asked.KEPT_UPLOADS
    assert pictures.open(first).getpixel((0, 0)) == (0, 0, 0)


def test_examples_are_test_images_from_the_least_to_the_most_doubted(folder, demo):
    with numpy.load(f"{folder}/predictions-test.npz") as kept:
        doubts = dict(zip(kept["image"].tolist(), kept["max_probability"].tolist()))
    names = ["/".join(path.split("/")[-2:]) for path, _ in demo.examples.values()]
    found = [doubts[name] for name in names]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (min(doubts.values()), max(doubts.values()))
    assert len(set(names)) == asked.EXAMPLES
    truths = [truth for _, truth in demo.examples.values()]
    assert [name.split("/")[0] for name in names] == truths


def test_without_its_images_a_run_has_no_examples(folder, demo, tmp_path, caplog):
    assert find_examples(folder, demo.classifier.record, str(tmp_path)) == []
    assert "No examples: " in caplog.text
    bare = make_app(Demo(demo.classifier))
    page = Page(bare.test_client().get("/").text)
    assert not page.all("fieldset")
    assert "example" not in page.text


# ---- the server and the command ----


def test_other_hosts_names_get_nothing_and_the_browser_is_told_to_ask_nobody(demo):
    client = make_app(demo).test_client()
    assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 400
    for path in ("/", "/pictures/example-1", "/static/style.css"):
        response = client.get(path, headers={"Host": "localhost:8000"})
        assert response.status_code == 200
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; img-src 'self'")
        assert "http" not in policy
    assert client.get("/pictures/nothing").status_code == 404


@pytest.mark.parametrize(
    "headers, status",  # what a browser says of a form's origin, and whether it is answered
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Referer": "http://localhost.elsewhere.example/"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_forms_of_other_sites_are_refused(demo, headers, status):
    client = make_app(demo).test_client()
    headers = {"Host": "localhost", **headers}
    answer = client.post("/", data={"picture": "example-1"}, headers=headers)
    assert answer.status_code == status


def test_others_are_answered_while_one_question_is_computed(demo, monkeypatch):
    server, started, goes_on = make_server(make_app(demo), 0), Event(), Event()
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


@pytest.mark.parametrize(
    "words, message",
    [
        ("--run nowhere", "nowhere holds no finished run"),
        ("--max-error 5", "--max-error is 5.0, it is a share: above 0 and below 1"),
        ("--root nowhere", "--root nowhere is not a folder"),
        ("--port 65536", "--port is 65536, it must be between 0"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_exit_code_2(folder, error_of, words, message):
    line = error_of(cdc_serve.main, "--run", folder, *words.split())
    assert line.startswith(f"error: {message}")


def test_a_port_that_is_taken_is_named(folder, demo, error_of):
    server = make_server(make_app(demo), 0)
    taken = f"--port {server.effective_port}"
    line = error_of(cdc_serve.main, "--run", folder, *taken.split())
    assert line.startswith(f"error: {taken} cannot be used (Address already in use): give another")
    server.close()

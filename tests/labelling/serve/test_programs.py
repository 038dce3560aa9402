"""POST /predict: the answers that cdc-predict prints, over both tasks; who may ask, and what is refused."""

import base64
import io
import json
import resource
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy
import pytest
from PIL import Image

import predict
from labelling import PromptedClassifier
from labelling.commands import serve as cdc_serve
from labelling.serve.demo import Demo
from labelling.serve.page import make_app, make_server
from tests.labelling.cases import SINGLE, over_tasks
from tests.runs import PATIENCE, call

TOKEN = "a secret"


@pytest.fixture
def served(run_of, pictures_of):
    """``served(task)``: a client, and the folder of the task's pictures."""

    def start(task, token="", host="127.0.0.1"):
        folder = pictures_of(task)
        demo = Demo(PromptedClassifier.load(run_of(task)), root=str(folder))
        return make_app(demo, token, host).test_client(), folder

    return start


@over_tasks
def test_every_way_of_asking_gives_the_rows_of_cdc_predict(task, served, run_of, capsys):
    client, folder = served(task)
    names = [f"{number}.png" for number in range(5)]
    capsys.readouterr()
    paths = [str(folder / name) for name in names]
    assert call(predict.main, "--run", run_of(task), "--json", *paths) == 0
    expected = json.loads(capsys.readouterr().out)

    def same(rows, asked):
        for row, known, name in zip(rows, expected, asked, strict=True):
            assert row.pop("image") == name
            known = {key: value for key, value in known.items() if key != "image"}
            assert row.keys() == known.keys()
            assert row["label"] == known["label"]
            for ours, theirs in zip(row["top"], known["top"]):
                assert ours.pop("class") == theirs["class"]
                assert ours == pytest.approx({k: theirs[k] for k in ours}, rel=1e-5)

    same(client.post("/predict", json={"paths": names}).json, names)
    parts = [(io.BytesIO((folder / name).read_bytes()), name) for name in names]
    same(client.post("/predict", data={"picture": parts}).json, names)
    expected = expected[2:3]
    same(client.post("/predict", data=(folder / names[2]).read_bytes()).json, [None])


def test_of_several_an_unreadable_picture_has_its_error_and_the_others_their_rows(served):
    client, folder = served(SINGLE)
    (folder.parent / "secret.png").write_bytes((folder / "0.png").read_bytes())
    asked = [
        "0.png",
        "../secret.png",
        str(folder.parent / "secret.png"),
        "1.png",
        "nul\0.png",
        "x" * 5000,
    ]
    rows = client.post("/predict", json={"paths": asked}).json
    assert [row["image"] for row in rows] == asked
    assert ["error" in row for row in rows] == [False, True, True, False, True, True]
    ends = "is no picture below the folder that --root names"
    assert all(row["error"].endswith(ends) for row in rows if "error" in row), (
        "of files elsewhere, too"
    )


def test_a_link_that_leads_out_of_the_root_is_not_followed(served, tmp_path):
    client, folder = served(SINGLE)
    (tmp_path / "secret.png").write_bytes((folder / "0.png").read_bytes())
    link = folder / "link.png"
    link.symlink_to(tmp_path / "secret.png")
    try:
        assert client.post("/predict", json={"paths": ["link.png"]}).status_code == 400
    finally:
        link.unlink()


def bomb():
    """A PNG that says of itself that it has 30,000 × 30,000 pixels."""
    file = io.BytesIO()
    Image.new("1", (1, 1)).save(file, format="PNG")
    content = bytearray(file.getvalue())
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))  # of the head
    return bytes(content)


@pytest.mark.parametrize(
    "words, message",
    [
        ({"data": b""}, "not one picture can be read; the first: image that was sent"),
        ({"data": b"no picture"}, "it is not an image of a known format"),
        ({"data": bomb()}, "900000000 pixels"),
        ({"json": ["0.png"]}, "the JSON is no"),
        ({"json": {"paths": [1]}}, "the JSON is no"),
        ({"json": {"paths": []}}, "there is no picture"),
        ({"data": b"{", "content_type": "application/json"}, "what was sent is no JSON"),
        ({"data": b"[" * 10**6, "content_type": "application/json"}, "what was sent is no JSON"),
        (
            {"data": {"note": "no file"}, "content_type": "multipart/form-data"},
            "there is no picture",
        ),
    ],
)
def test_what_cannot_be_answered_is_one_line_of_json(served, words, message):
    client, _ = served(SINGLE)
    response = client.post("/predict", **words)
    assert response.status_code == 400
    assert message in response.json["error"]
    assert "\n" not in response.json["error"]


def test_a_bomb_is_refused_however_it_is_sent(run_of, own_pictures):
    folder = own_pictures(SINGLE)
    (folder / "bomb.png").write_bytes(bomb())
    demo = Demo(PromptedClassifier.load(run_of(SINGLE)), root=str(folder))
    client = make_app(demo).test_client()
    task = {"data": {"image": "/data/local-files/?d=bomb.png"}}
    for words in (
        {"data": bomb()},
        {"data": {"picture": (io.BytesIO(bomb()), "bomb.png")}},
        {"json": {"paths": ["bomb.png"]}},
    ):
        response = client.post("/predict", **words)
        assert response.status_code == 400
        assert "900000000 pixels" in response.json["error"]
    (answer,) = client.post("/predict", json={"tasks": [task]}).json["results"]
    assert answer["result"] == []
    page = client.post("/", data={"upload": (io.BytesIO(bomb()), "bomb.png")}).text
    assert "900000000 pixels" in page


def test_without_a_root_no_path_is_read(run_of, pictures_of):
    client = make_app(Demo(PromptedClassifier.load(run_of(SINGLE)))).test_client()
    path = str(pictures_of(SINGLE) / "0.png")
    response = client.post("/predict", json={"paths": [path]})
    assert response.status_code == 400
    assert "start cdc-serve with --root FOLDER" in response.json["error"]


# ---- who may ask ----


def addresses_of(app):
    """Each address of the server with each of its methods."""
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<key>", "example-1").replace("<path:filename>", "style.css")
        for method in sorted(rule.methods & {"GET", "POST"}):
            yield path, method


def test_other_hosts_and_origins_get_nothing(served):
    """At no address; a page that another site shows may be asked for, its forms may not be sent."""
    client, _ = served(SINGLE)
    asked = [*addresses_of(client.application)]
    assert {path for path, method in asked if method == "POST"} == {
        "/",
        "/predict",
        "/setup",
        "/webhook",
    }
    for path, method in asked:
        usual = client.open(path, method=method, json={}).status_code
        assert usual not in (401, 403), path
        host = {"Host": "elsewhere.example"}
        assert client.open(path, method=method, json={}, headers=host).status_code == 400
        for headers in (
            {"Origin": "http://elsewhere.example"},
            {"Referer": "http://elsewhere.example/"},
            {"Sec-Fetch-Site": "cross-site"},
        ):
            response = client.open(path, method=method, json={}, headers=headers)
            assert response.status_code == (403 if method == "POST" else usual), path


def test_other_machines_need_the_token(served):
    client, _ = served(SINGLE, TOKEN, "0.0.0.0")
    password = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    for path, method in addresses_of(client.application):
        for authorization, is_known in (
            (None, False),
            ("Bearer another", False),
            ("Bearer", False),
            ("Basic bm9uc2Vuc2U=", False),
            (f"Bearer {TOKEN}", True),
            (f"Basic {password}", True),
        ):
            headers = {"Host": "my-server:8000"} | (
                {"Authorization": authorization} if authorization else {}
            )
            response = client.open(path, method=method, json={}, headers=headers)
            assert (response.status_code != 401) == is_known, (path, authorization)
            assert ("WWW-Authenticate" in response.headers) != is_known


def test_without_a_token_no_other_machine_is_served(run_of, error_of, monkeypatch):
    monkeypatch.delenv("CDC_TOKEN", raising=False)
    line = error_of(cdc_serve.main, "--run", run_of(SINGLE), "--host", "0.0.0.0")
    assert line.startswith(
        "error: --host 0.0.0.0 lets other machines ask: set the environment variable CDC_TOKEN"
    )
    monkeypatch.setenv("CDC_TOKEN", TOKEN)
    line = error_of(cdc_serve.main, "--run", run_of(SINGLE), "--host", "192.0.2.1")
    assert "cannot be used" in line


# ---- under load ----


@pytest.fixture
def address(run_of):
    server = make_server(make_app(Demo(PromptedClassifier.load(run_of(SINGLE)))), 0)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}/predict"
    server.close()


def photograph():
    pixels = numpy.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype="uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).resize((1024, 768)).save(file, format="JPEG")
    return file.getvalue()


def memory():
    """MB of this process now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def ask(address, body):
    request = Request(address, body, {"Content-Type": "image/jpeg"})
    return json.load(urlopen(request, timeout=PATIENCE))


def load(address, requests, clients=20):
    """Ask side by side; returns the answers' labels."""
    body = photograph()
    with ThreadPoolExecutor(clients) as pool:
        rows = pool.map(lambda _: ask(address, body), range(requests))
        return {row["label"] for (row,) in rows}


def test_twenty_requests_side_by_side_have_one_answer(address):
    assert len(load(address, 60)) == 1


@pytest.mark.parametrize("says_its_size", [True, False])
def test_a_request_that_is_too_large_is_refused_and_the_next_one_answered(address, says_its_size):
    body = bytes(65 * 2**20) if says_its_size else (bytes(2**20) for _ in range(65))
    with pytest.raises((HTTPError, OSError)):
        urlopen(Request(address, body), timeout=PATIENCE)
    assert ask(address, photograph())


@pytest.mark.slow
def test_a_minute_of_twenty_clients_has_no_error_and_takes_no_memory(address):
    load(address, 200)
    before = memory()
    end = time.monotonic() + 60
    number = 0
    while time.monotonic() < end:
        assert len(load(address, 200)) == 1
        number += 200
    print(f"{number} requests in a minute, {memory() - before:+.1f} MB")
    assert memory() - before < 30

"""Where OpenAI's weights come from: caches, then addresses, which a server here plays."""

import hashlib
import http.server
import threading

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save

from tests.prompting.models import CONFIG
from tests.runs import PATIENCE, refuses
from trainers.prompting.backbone import load_backbone
from trainers.prompting.hashes import tensor_hash
from trainers.prompting.weights import openai

REPOSITORY = "timm/vit_base_patch16_clip_224.openai"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as ``server.answers`` says for what the path ends in, and keeps the requests."""

    timeout = PATIENCE  # not the default, which a download shortens

    def log_message(self, *_):
        pass

    def do_GET(self):
        content, how = self.server.answers[self.path.rpartition(".")[2]]
        self.server.requests.append(self.path.rpartition(".")[2])
        if how == "hangs":
            self.server.is_over.wait(PATIENCE)
        if how == "404":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: 1000 if how == "cut" else None])


@pytest.fixture
def server(monkeypatch, tmp_path, stock_vit):
    """A server with ViT-B/16's file at OpenAI's address and on the hub, and empty caches."""
    weights = {key: value.contiguous() for key, value in stock_vit.state_dict().items()}
    torch.save(weights, f"{tmp_path}/whole.pt")
    contents = {"pt": (tmp_path / "whole.pt").read_bytes(), "safetensors": save(weights)}
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.requests, server.is_over = [], threading.Event()
        server.answers = {name: (content, "whole") for name, content in contents.items()}
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setitem(openai.ADDRESSES, "ViT-B/16", f"{url}/{sha256['pt']}/ViT-B-16.pt")
        monkeypatch.setitem(openai.TIMM, "ViT-B/16", (REPOSITORY, sha256["safetensors"]))
        monkeypatch.setattr(openai, "HUB", url)
        monkeypatch.setattr(openai, "CACHE", f"{tmp_path}/cache")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", f"{tmp_path}/hub")

        def answer(name, how):
            server.answers[name] = contents[name], how
            # long where all else answers, so that a busy machine's answer is never too late
            monkeypatch.setattr(openai, "TIMEOUT", 2 if how == "hangs" else PATIENCE)

        server.answer = answer
        yield server
        server.is_over.set()
        server.shutdown()
        thread.join()


def in_hub_cache(tmp_path, repository, file):
    place = tmp_path / f"hub/models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text("abc")
    (place / "snapshots/abc").mkdir(parents=True)
    return place / f"snapshots/abc/{file}"


@pytest.mark.parametrize("how", ["whole", "404", "wrong", "hangs", "cut"])
def test_openais_weights_come_from_openai_or_else_from_the_hub_and_once(server, tmp_path, vit, how):
    server.answer("pt", how)
    if how == "wrong":
        server.answers["pt"] = b"another file", "whole"
    for _ in range(2):
        ours = load_backbone("ViT-B/16")
        assert tensor_hash(ours.state_dict().values()) == tensor_hash(vit.state_dict().values())
        asked = ["pt"] if how == "whole" else ["pt", "safetensors"]
        assert server.requests == asked
    left = {path.name for path in (tmp_path / "cache").iterdir()}
    assert left == {f"ViT-B-16.{asked[-1]}"}


def test_a_broken_download_starts_over(server, tmp_path):
    server.answer("pt", "cut")
    server.answer("safetensors", "404")
    with refuses(r"ViT-B-16.pt \(invalid hash value"):
        load_backbone("ViT-B/16")
    assert not list((tmp_path / "cache").iterdir())
    server.answer("pt", "whole")
    assert load_backbone("ViT-B/16").takes_visual_prompts


def test_where_nothing_answers_all_places_are_told_and_which_file_goes_where(server, tmp_path):
    server.answer("pt", "404")
    server.answer("safetensors", "hangs")
    with refuses() as refusal:
        load_backbone("ViT-B/16")
    url, hub = openai.ADDRESSES["ViT-B/16"], f"{openai.HUB}/{REPOSITORY}/resolve/main/"
    for part in (
        f"{url} (HTTP Error 404: Not Found), to be put at {tmp_path}/cache/ViT-B-16.pt; {hub}",
        "open_clip_model.safetensors (",
        f"timed out), to be put at {tmp_path}/cache/ViT-B-16.safetensors. Hugging",
        f"cache was searched for {REPOSITORY}/open_clip_model.safetensors and openai/clip-vit-base",
    ):
        assert part in str(refusal.value)
    assert "--backbone tiny" in str(refusal.value).partition("http")[0], "addresses come last"
    (tmp_path / "cache/ViT-B-16.safetensors").write_bytes(server.answers["safetensors"][0])
    assert load_backbone("ViT-B/16").takes_visual_prompts


@pytest.mark.parametrize("file", ["model.safetensors", "open_clip_model.safetensors"])
def test_what_hugging_faces_cache_has_is_not_downloaded(server, tmp_path, vit, file):
    if file == "open_clip_model.safetensors":
        in_hub_cache(tmp_path, REPOSITORY, file).write_bytes(server.answers["safetensors"][0])
    else:
        transformers = pytest.importorskip("transformers")
        place = in_hub_cache(tmp_path, "openai/clip-vit-base-patch16", file)
        transformers.CLIPModel(transformers.CLIPConfig(**CONFIG)).save_pretrained(place.parent)
        assert load_backbone("hf:openai/clip-vit-base-patch16").image.image_size == 32
    assert load_backbone("ViT-B/16").image.image_size == 32
    assert not server.requests and not (tmp_path / "cache").exists()


def test_a_file_of_the_users_in_the_place_of_the_weights_is_never_touched(server, tmp_path):
    """clip itself would download over it; a failed download deleted it."""
    path = tmp_path / "cache/ViT-B-16.pt"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    message = r"ViT-B-16\.pt is not OpenAI's ViT-B/16: its SHA-256 is .{16}…, 4 bytes, not .{16}…"
    with refuses(message):
        load_backbone("ViT-B/16")
    assert path.read_bytes() == b"mine" and not server.requests

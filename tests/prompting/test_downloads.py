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
        kind = self.path.rpartition(".")[2]
        content, how = self.server.answers[kind]
        self.server.requests.append(kind)
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
        monkeypatch.setattr(openai, "HUB_ADDRESS", url)
        monkeypatch.setattr(openai, "CACHE", f"{tmp_path}/cache")
        monkeypatch.setattr(openai, "TIMEOUT", PATIENCE)  # a busy machine's answer is not too late
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", f"{tmp_path}/hub")
        yield server
        server.is_over.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("how", ["whole", "404", "wrong", "cut"])
def test_openais_weights_come_from_openai_or_else_from_the_hub_and_once(server, tmp_path, vit, how):
    content, _ = server.answers["pt"]
    server.answers["pt"] = b"another file" if how == "wrong" else content, how
    asked = ["pt"] if how == "whole" else ["pt", "safetensors"]
    for _ in range(2):
        ours = load_backbone("ViT-B/16")
        assert tensor_hash(ours.state_dict().values()) == tensor_hash(vit.state_dict().values())
        assert server.requests == asked
    left = {path.name for path in (tmp_path / "cache").iterdir()}
    assert left == {f"ViT-B-16.{asked[-1]}"}


def test_where_nothing_answers_all_places_are_told_and_which_file_goes_where(
    server, tmp_path, monkeypatch
):
    whole, _ = server.answers["safetensors"]
    server.answers = {"pt": (b"", "404"), "safetensors": (b"", "hangs")}
    monkeypatch.setattr(openai, "TIMEOUT", 1)
    with refuses() as refusal:
        load_backbone("ViT-B/16")
    cache = tmp_path / "cache"
    for part in (
        f"{openai.ADDRESSES['ViT-B/16']} (HTTP Error 404: Not Found), to be put at {cache}/ViT-B-16.pt",
        f"timed out), to be put at {cache}/ViT-B-16.safetensors. Hugging",
        f"cache was searched for {REPOSITORY}/open_clip_model.safetensors and openai/clip-vit-base",
    ):
        assert part in str(refusal.value)
    assert "--backbone tiny" in str(refusal.value).partition("http")[0], "addresses come last"
    (cache / "ViT-B-16.safetensors").write_bytes(whole)
    assert load_backbone("ViT-B/16").takes_visual_prompts


def test_what_hugging_faces_cache_has_is_not_downloaded(server, tmp_path):
    transformers = pytest.importorskip("transformers")
    place = tmp_path / "hub/models--openai--clip-vit-base-patch16"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text("abc")
    model = transformers.CLIPModel(transformers.CLIPConfig(**CONFIG))
    model.save_pretrained(place / "snapshots/abc")
    for name in ("hf:openai/clip-vit-base-patch16", "ViT-B/16"):
        assert load_backbone(name).image.image_size == 32
    assert not server.requests


def test_a_file_of_the_users_in_the_place_of_the_weights_is_never_touched(server, tmp_path):
    """clip itself would download over it; a failed download deleted it."""
    path = tmp_path / "cache/ViT-B-16.pt"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with refuses(
        r"ViT-B-16\.pt is not OpenAI's ViT-B/16: its SHA-256 is .{16}…, 4 bytes, not .{16}…"
    ):
        load_backbone("ViT-B/16")
    assert path.read_bytes() == b"mine"
    assert not server.requests

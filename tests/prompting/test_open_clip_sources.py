"""Models of ``open_clip`` in a folder and in a repository of the hub, with random weights, against
those that the package itself makes of them. A server here plays the hub."""

import contextlib
import json
import logging

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import GOLDEN
from tests.hub import COMMIT, serving
from tests.prompting.models import assert_same, double, exact, noisy
from tests.runs import contents_of, refuses
from trainers.common.errors import UserError
from trainers.prompting.backbone import load_backbone, pixels_of

open_clip = pytest.importorskip(
    "open_clip", reason="open_clip_torch is not installed: pip install '.[open_clip]'"
)
pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install '.[transformers]'"
)

import transformers  # noqa: E402

from tests.prompting.small_models import BERT, in_small  # noqa: E402
from tests.prompting.small_tokenizer import small_tokenizer  # noqa: E402

TEXTS = ["a photo of a cat.", "two dogs", "a"]
CLIPS = GOLDEN["models"]["open_clip"]["small-gelu"]
TOKENIZER = {"hf_tokenizer_name": "someone/words", "vocab_size": 100}
BLACK_BOX = {
    **CLIPS,
    "custom_text": True,
    "text_cfg": {**CLIPS["text_cfg"], "no_causal_mask": True, **TOKENIZER},
}
CONFIGS = [CLIPS, {**CLIPS, "custom_text": True}, BLACK_BOX]
MADE = {
    "size": 32,
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.4],
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


def write(folder, config=CLIPS, weights="open_clip_model.safetensors", **facts):
    """A folder as open_clip saves it; ``facts``: what else is in the file of the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_cfg": config, "preprocess_cfg": MADE, **facts}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    settings = dict(config)
    kind = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    model = noisy(kind(**settings))
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    if weights.endswith(".safetensors"):
        save_file(state, folder / weights)
    elif weights:
        torch.save(state, folder / weights)
    if "hf_tokenizer_name" in config["text_cfg"]:
        small_tokenizer().save_pretrained(folder)
    return folder


def assert_is(ours, folder):
    """A backbone's features are those of the package's own model of a folder."""
    theirs = open_clip.create_model(f"local-dir:{folder}").eval().requires_grad_(False)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    ours, theirs = exact(ours), exact(theirs)
    images = double(1, 2, 3, 32, 32)
    with torch.no_grad():
        assert_same(ours.image(images)[0], theirs.encode_image(images[0], normalize=False))
        assert_same(ours.text.encode_tokens(tokens), theirs.encode_text(tokens, normalize=False))


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("config", CONFIGS, ids=["own", "own under other names", "black box"])
def test_a_folders_features_are_those_of_the_package(tmp_path, config, weights):
    folder = write(tmp_path / "saved", config, weights)
    assert_is(load_backbone(f"open_clip:local-dir:{folder}"), folder)


def test_a_folders_activation_and_pixels_are_those_of_its_configuration(tmp_path):
    folder = write(tmp_path / "saved", {**CLIPS, "quick_gelu": True})
    backbone = load_backbone(f"open_clip:local-dir:{folder}")
    assert backbone.activation == "quick_gelu"
    assert backbone.normalization == (MADE["mean"], MADE["std"])
    assert pixels_of(f"open_clip:local-dir:{folder}") == {
        "SIZE": (32, 32),
        "PIXEL_MEAN": MADE["mean"],
        "PIXEL_STD": MADE["std"],
        "INTERPOLATION": "bilinear",
        "SQUASH": True,
    }


# ---- the hub ----


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving("someone/clip", monkeypatch, tmp_path / "cache") as server:
        yield server


@pytest.fixture
def saved(tmp_path):
    """``saved(hub, …)``: a folder as ``write`` makes it, whose files the hub has."""

    def save(hub, *words):
        folder = write(tmp_path / "saved", *words)
        hub.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return folder

    return save


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_repository_of_the_hub_is_downloaded_once(hub, saved, weights):
    folder = saved(hub, CLIPS, weights)
    name = "open_clip:hf-hub:someone/clip"
    assert pixels_of(name)["PIXEL_MEAN"] == MADE["mean"]
    assert hub.downloads == ["open_clip_config.json"], "nothing is loaded for pixels"
    assert_is(load_backbone(name), folder)
    asked = len(hub.requests)
    load_backbone(name)
    assert len(hub.requests) == asked


def test_weights_and_configuration_are_of_one_commit(hub, saved):
    saved(hub)
    name = "open_clip:hf-hub:someone/clip"
    assert pixels_of(name)
    hub.commit = "b" * 40  # the repository has changed meanwhile
    load_backbone(name)
    assert {*hub.revisions} == {COMMIT}


@pytest.mark.parametrize("etag", ["{home}/thesis.txt", "{home}/new.txt", "../../../home/new.txt"])
def test_an_etag_leads_to_no_file(hub, saved, tmp_path, etag):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("mine")
    saved(hub)
    hub.etag = etag.format(home=tmp_path / "home")
    load_backbone("open_clip:hf-hub:someone/clip")
    assert contents_of(tmp_path / "home") == {tmp_path / "home/thesis.txt": b"mine"}


@pytest.mark.parametrize("commit", ["../../home", "/home", "main", "a" * 39, None])
def test_a_commit_that_is_none_is_refused(hub, saved, tmp_path, commit):
    saved(hub)
    hub.commit = commit
    with refuses(f"says that someone/clip is at '{commit}', which is no commit"):
        load_backbone("open_clip:hf-hub:someone/clip")
    assert not (tmp_path / "cache").exists()


def test_a_link_that_leads_out_of_the_cache_is_not_read(hub, saved, tmp_path):
    folder = saved(hub)
    load_backbone("open_clip:hf-hub:someone/clip")
    snapshot = tmp_path / f"cache/models--someone--clip/snapshots/{COMMIT}"
    for file in folder.iterdir():
        (snapshot / file.name).unlink()
        (snapshot / file.name).symlink_to(file)
    assert len(hub.downloads) == 2
    load_backbone("open_clip:hf-hub:someone/clip")
    assert len(hub.downloads) == 4


def test_a_repository_that_cannot_be_had_is_named_with_the_way_around(hub):
    with refuses(
        "open_clip_config.json of the repository someone/clip, .*: check its name; without a network run "
        "hf download someone/clip --local-dir FOLDER .* give open_clip:local-dir:FOLDER"
    ):
        load_backbone("open_clip:hf-hub:someone/clip")
    assert pixels_of("open_clip:hf-hub:someone/clip") == {}
    with refuses("of the repository no name/at all, which can't be had"):
        load_backbone("open_clip:hf-hub:no name/at all")


# ---- text towers that are repositories of their own ----


@pytest.fixture
def with_words(hub, tmp_path):
    """``with_words(config)``: the hub has a model of a config, whose text tower needs files of the
    repositories someone/net and someone/words there; the model's folder."""
    small_tokenizer().save_pretrained(tmp_path / "words")
    transformers.RobertaConfig(vocab_size=100, **BERT).save_pretrained(tmp_path / "words")
    for name in ("words", "net"):
        files = (tmp_path / "words").iterdir()
        hub.repositories[f"someone/{name}"] = {file.name: file.read_bytes() for file in files}

    def make(config):
        local = {**config["text_cfg"]}
        if "hf_model_name" in local:
            local["hf_model_name"] = f"{tmp_path / 'words'}"
        folder = write(tmp_path / "saved", {**config, "text_cfg": local})
        content = json.dumps({"model_cfg": config, "preprocess_cfg": MADE})
        hub.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        hub.files["open_clip_config.json"] = content.encode()
        return folder

    return make


NETWORK = {
    **BLACK_BOX,
    "text_cfg": {"hf_model_name": "someone/net", "hf_model_pretrained": False, **TOKENIZER},
}
WITH_WORDS = pytest.mark.parametrize("config", [BLACK_BOX, NETWORK], ids=["words", "network"])


@WITH_WORDS
def test_a_text_towers_files_are_downloaded_once(hub, with_words, config):
    folder = with_words(config)
    name = "open_clip:hf-hub:someone/clip"
    assert_is(load_backbone(name), folder)
    asked = len(hub.requests)
    load_backbone(name)
    assert len(hub.requests) == asked


@WITH_WORDS
@pytest.mark.parametrize("etag", ["{home}/thesis.txt", "{home}/new.txt", "../../../home/new.txt"])
def test_an_etag_of_a_text_towers_files_leads_to_no_file(hub, with_words, tmp_path, config, etag):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("mine")
    with_words(config)
    hub.etag = etag.format(home=tmp_path / "home")
    load_backbone("open_clip:hf-hub:someone/clip")
    assert contents_of(tmp_path / "home") == {tmp_path / "home/thesis.txt": b"mine"}


def test_a_tokenizers_code_is_not_run(hub, with_words, tmp_path):
    with_words(BLACK_BOX)
    words = hub.repositories["someone/words"]
    words["tokenizer_config.json"] = b'{"auto_map": {"AutoTokenizer": ["evil.Words", null]}}'
    words["evil.py"] = f"open({f'{tmp_path}/mark'!r}, 'w')\nclass Words: pass\n".encode()
    with contextlib.suppress(UserError):
        load_backbone("open_clip:hf-hub:someone/clip")
    assert not (tmp_path / "mark").exists()
    assert "evil.py" not in hub.downloads


def test_a_backbone_says_which_commit_its_weights_are_of(hub, saved):
    folder = saved(hub)
    assert load_backbone("open_clip:hf-hub:someone/clip").origin == f"someone/clip@{COMMIT}"
    assert load_backbone(f"open_clip:local-dir:{folder}").origin == ""


def test_the_repositories_of_a_text_tower_are_said(monkeypatch, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        load_backbone(in_small(monkeypatch, "roberta-ViT-B-32", tmp_path)[1])
    assert "need files of roberta-base on the hub" in caplog.text
    assert "hf download roberta-base" in caplog.text


def test_a_tokenizer_that_is_not_in_the_folder_is_named(tmp_path):
    folder = write(tmp_path / "saved", BLACK_BOX)
    for path in folder.glob("*token*"):
        path.unlink()
    with refuses(f"files of someone/words: .* hf download someone/words --local-dir {folder}"):
        load_backbone(f"open_clip:local-dir:{folder}")


# ---- what can't be used ----


@pytest.mark.parametrize(
    "config, facts, message",
    [
        ({**CLIPS, "vision_cfg": None}, {}, "is not a model of images and texts: "),
        ({"embed_dim": 8, "audio_cfg": {}}, {}, "is not a model of images and texts: "),
        ({**CLIPS, "embed_dim": "wide"}, {}, "its embed_dim is 'wide', not a number"),
        ({**CLIPS, "text_cfg": {"heads": 0}}, {}, "its heads is 0, not a number from 1 on"),
        ({**CLIPS, "vision_cfg": {"image_size": [32, 64]}}, {}, "its images are .32, 64. pixels"),
        (5, {}, "can't be read as a model of open_clip"),
        (CLIPS, {"preprocess_cfg": {"mean": [0.5]}}, "its mean and std are not three numbers"),
        (CLIPS, {"preprocess_cfg": {"resize_mode": "longest"}}, "its resize_mode is not shortest"),
        (
            {**CLIPS, "text_cfg": {"tokenizer_kwargs": {"trust_remote_code": True}}},
            {},
            "its tokenizer_kwargs are .*trust_remote_code.*, and others than .* may run code",
        ),
    ],
)
def test_a_configuration_that_is_not_a_models_is_refused(tmp_path, config, facts, message):
    content = {"model_cfg": config, **facts}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    with refuses(message):
        load_backbone(f"open_clip:local-dir:{tmp_path}")
    assert pixels_of(f"open_clip:local-dir:{tmp_path}") == {}


@pytest.mark.parametrize("content", ["", "[]", '{"embed_dim": 8}'])
def test_a_damaged_configuration_is_refused(tmp_path, content):
    (tmp_path / "open_clip_config.json").write_text(content)
    with refuses("open_clip_config.json can't be read as a model of open_clip"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")


def test_a_folder_without_its_files_is_refused(tmp_path):
    with refuses("has no open_clip_config.json: give a folder as open_clip saves it"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")
    write(tmp_path, weights="")
    with refuses("has no open_clip_model.safetensors, open_clip_pytorch_model.bin, model.safe"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")


def test_a_listed_model_without_an_image_tower_is_refused(monkeypatch):
    """open_clip 4 lists models of sounds and of texts alone."""
    sounds = {key: value for key, value in CLIPS.items() if key != "vision_cfg"}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "sounds", sounds)
    with refuses("open_clip:sounds/tag is not a model of images and texts: "):
        load_backbone("open_clip:sounds/tag")
    assert pixels_of("open_clip:sounds/tag") == {}

"""Whole runs on one's own pictures with models of ``open_clip`` by the names of published weights, which
are random here."""

import json

import numpy
import pytest
import torch

import predict
import train
from labelling import PromptedClassifier
from labelling.defaults import TAKEN
from tests.conftest import slow_but_for
from tests.runs import make_pictures, record_of
from trainers.prompting.weights import open_clip_sources

open_clip = pytest.importorskip(
    "open_clip", reason="open_clip_torch is not installed: pip install '.[open_clip]'"
)
pytest.importorskip("transformers", reason="transformers is not installed")

from tests.prompting.small_models import in_small  # noqa: E402

# a model and a tag of each family
FAMILIES = {
    "PE-Core-T-16-384": "meta",
    "EVA02-B-16": "merged2b_s8b_b131k",
    "ViTamin-S": "datacomp1b",
    "convnext_base": "laion400m_s13b_b51k",
    "MobileCLIP2-B": "dfndr2b",
    "MobileCLIP2-S0": "dfndr2b",
    "ViT-B-32-SigLIP2-256": "webli",
    "ViT-B-16-SigLIP": "webli",
    "ViT-H-14-worldwide-quickgelu": "metaclip2_worldwide",
    "ViT-L-14-CLIPA": "datacomp1b",
    "coca_ViT-B-32": "laion2b_s13b_b90k",
    "nllb-clip-base": "v1",
    "xlm-roberta-base-ViT-B-32": "laion5b_s13b_b90k",
}
FEW = ("ViT-B-32-SigLIP2-256",)


@pytest.fixture
def words(monkeypatch, tmp_path):
    """``words(model)``: arguments of train.py with weights of it that are published, which a file here
    stands for."""

    def make(model):
        _, name = in_small(monkeypatch, model, tmp_path)
        path = name.partition("/")[2]
        monkeypatch.setattr(open_clip_sources, "first_of", lambda *_: path)
        images = make_pictures(tmp_path / "images", count=6, names=("cat", "dog"))
        clip = f"open_clip:{model}/{FAMILIES[model]}"
        return ["--images", str(images), "--backbone", clip, "--output-dir", f"{tmp_path}/run"]

    return make


@slow_but_for(FEW, FAMILIES)
def test_a_folder_is_trained_on_and_labelled_by_each_family(words, tmp_path, capsys, name):
    assert train.main([*words(name), "DATALOADER.NUM_WORKERS", "0"]) == 0
    record = record_of(tmp_path / "run")
    assert record["trainer"] == TAKEN
    tag = open_clip.get_pretrained_cfg(name, FAMILIES[name])
    pixels = record["config"]["INPUT"]
    assert tuple(pixels["PIXEL_MEAN"]) == tuple(tag["mean"])
    assert pixels["SQUASH"] == (tag["resize_mode"] == "squash")
    capsys.readouterr()
    assert predict.main(["--run", f"{tmp_path}/run", "--json", f"{tmp_path}/images"]) == 0
    labels = {answer["label"] for answer in json.loads(capsys.readouterr().out)}
    assert labels <= {"cat", "dog"}
    classifier = PromptedClassifier.load(tmp_path / "run")
    assert classifier.with_classes(["cat", "two dogs"]).classnames == ["cat", "two dogs"]


def test_a_prompt_trainer_on_another_text_encoder_is_refused_in_one_line(words, tmp_path, error_of):
    line = error_of(train.main, "--trainer", "CDC", *words("ViT-B-32-SigLIP2-256"))
    start = "TRAINER.CDC prompts the text encoder, and the backbone's is a black box (TextTransformer): "
    assert f"{start}choose ZeroshotCLIP, ZeroshotCLIP2, " in line
    assert not (tmp_path / "run/results.json").exists()


@slow_but_for((), FAMILIES)
def test_a_family_is_exported(words, tmp_path, name):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    assert train.main([*words(name), "--trainer", "ZeroshotCLIP"]) == 0
    classifier = PromptedClassifier.load(tmp_path / "run")
    classifier.export(tmp_path / "exported")
    session = onnxruntime.InferenceSession(tmp_path / "exported/model.onnx")
    size = classifier.method.backbone.image.image_size
    pixels = torch.randint(256, (3, 3, size, size)).byte()
    found = session.run(None, {"pixels": pixels.float().numpy() / 255})[0]
    numpy.testing.assert_allclose(found, classifier.predict(pixels).probabilities, atol=1e-4)

"""What ``PromptedClassifier.export`` writes: the ONNX file says what torch says, and the card's
example runs."""

import json

import numpy
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from markdown_it import MarkdownIt
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from labelling import export
from tests.conftest import FEW, LEARNING, TRAINERS, slow_but_for
from tests.runs import python, refuses
from tests.same_run import assert_equal
from trainers import METHODS, method_class
from trainers.common.console import markdown, printable
from trainers.engine.checkpoint import MODEL_NAME, newest
from trainers.method import Method
from trainers.prompting.backbone import load_backbone
from trainers.texts.templates import DEFAULT_TEMPLATE

EXPORTED = [name for name in TRAINERS if name != "CoCoOp"]  # whose texts depend on the image


def exported(classifier, folder):
    classifier.export(str(folder))
    names = "README.md cdc_export.txt model.onnx prompts.safetensors".split()
    if classifier.method.merged():
        names.insert(2, "clip.safetensors")
    assert sorted(path.name for path in folder.iterdir()) == names
    return onnxruntime.InferenceSession(f"{folder}/model.onnx")


@pytest.fixture(scope="module")
def german(loaded, tmp_path_factory):
    """A classifier of CDC's for other classes, its exported folder, and that as a session."""
    classifier = loaded("CDC").with_classes(["Kühe", "Pferde"])
    folder = tmp_path_factory.mktemp("german") / "a/b"
    return classifier, folder, exported(classifier, folder)


@slow_but_for(("CDC", FEW[-1]), EXPORTED)
def test_the_onnx_model_says_what_torch_says(trained, tmp_path, name, loaded, german):
    if name == "CDC":
        classifier, folder, session = german
    else:
        classifier = loaded(name)
        folder = tmp_path / "exported"
        session = exported(classifier, folder)
    torch.manual_seed(0)
    pixels = torch.randint(256, (40, 3, 32, 32)).byte()  # of the model's size: nothing is resized
    for images in (40, 1):
        answers = classifier.predict(pixels[:images])
        assert answers.probabilities.std() > 20 * export.EXPORT_TOLERANCE, (
            "images and classes differ"
        )
        expected = [answers.probabilities]
        if answers.vacuity is not None:
            expected.append(answers.vacuity)
        outputs = session.run(None, {"pixels": pixels[:images].float().numpy() / 255})
        for output, known in zip(outputs, expected, strict=True):
            numpy.testing.assert_allclose(output, known, rtol=0, atol=export.EXPORT_TOLERANCE)
    stored = load_file(folder / "prompts.safetensors")
    numpy.testing.assert_array_equal(stored.pop("text_features"), classifier.encoded[0])
    if name in LEARNING:
        place = trained(name) / MODEL_NAME
        state = torch.load(place / newest(place), weights_only=True)["state_dict"]
        assert_equal(stored, state, "prompts")


@pytest.mark.slow
def test_an_export_of_names_that_were_added_and_taken_away_is_that_of_the_first(loaded, tmp_path):
    classifier = loaded("TipAdapter")
    names = classifier.classnames[::-1]
    added = classifier.with_classes([*names, "moon"])
    card = export.model_card(added, ["probability"])
    assert "Not trained: moon" in MarkdownIt().render(card)
    session = exported(added.with_classes(names), tmp_path / "exported")
    pixels = torch.randint(256, (5, 3, 32, 32)).byte()
    probability, *_ = session.run(None, {"pixels": pixels.float().numpy() / 255})
    known = classifier.predict(pixels).probabilities[:, ::-1]
    numpy.testing.assert_allclose(probability, known, rtol=0, atol=export.EXPORT_TOLERANCE)


@pytest.mark.parametrize("name", ["CLIPLoRA", "ProLIP"])
def test_merged_weights_are_a_clip_that_answers_as_the_trained_one(loaded, name, tmp_path):
    """Without the method: its texts are hand-crafted, and its images go through the tower alone."""
    classifier = loaded(name)
    learned = classifier.method
    torch.nn.init.normal_(next(reversed([*learned.learner.parameters()])), std=0.1)
    save_file(learned.merged().openai_state(), tmp_path / "clip.safetensors")
    clip = load_backbone(str(tmp_path / "clip.safetensors"))
    images = torch.rand(1, 5, 3, 32, 32)
    with torch.no_grad():
        scores = learned(images)
        features = F.normalize(clip.image(images)[0], dim=-1)
        texts = [clip.encode_classes(DEFAULT_TEMPLATE, classifier.classnames)]
        before = F.normalize(learned.backbone.image(images)[0], dim=-1)
    torch.testing.assert_close(features, scores.image_features[0], rtol=0, atol=1e-5)
    assert (features - before).abs().max() > 1e-2, "the images are changed"
    if name == "CLIPLoRA":
        torch.testing.assert_close(texts[0], scores.text_features[0], rtol=0, atol=1e-5)


def test_what_can_be_merged():
    merge = {name for name in METHODS if method_class(name).merged is not Method.merged}
    assert merge == {"CLIPLoRA", "ProLIP"}


def test_what_the_files_say_of_themselves(german):
    classifier, folder, session = german
    metadata = session.get_modelmeta().custom_metadata_map
    with safe_open(f"{folder}/prompts.safetensors", "pt") as file:
        assert file.metadata() == {key: metadata[key] for key in file.metadata()}
    assert json.loads(metadata["classnames"]) == ["Kühe", "Pferde"]
    assert (metadata["trainer"], metadata["seed"]) == ("CDC", "1")
    card = (folder / "README.md").read_text("utf-8")
    record = classifier.record
    for fact in (
        "DescribableTextures, all classes, 4 images a class",
        "0. Kühe\n1. Pferde\n",
        f"| accuracy | {record['metrics']['test']['accuracy']:.2f} % |",
        record["prompts_hash"],
        record["backbone_hash"],
    ):
        assert fact in card


def test_the_cards_example_runs(german, data_root):
    classifier, folder, _ = german
    card = (folder / "README.md").read_text("utf-8")
    program = card.split("```python\n")[1].split("```")[0]
    # half transparent, black where nobody sees it, turned by its EXIF data
    image, exif = Image.open(f"{data_root}/dtd/images/banded/00.png").convert("RGBA"), Image.Exif()
    image.paste((0, 0, 0, 0), (0, 0, image.width // 2, image.height))
    exif[0x0112] = 6
    image.save(f"{folder}/cat.jpg", "PNG", exif=exif)
    done = python("-c", program, cwd=folder)
    answers = classifier.predict(f"{folder}/cat.jpg")
    label, probability = done.stdout.rsplit(maxsplit=1)
    assert label == answers.labels[0], done.stderr
    assert float(probability) == pytest.approx(answers.probabilities.max(), abs=0.02)


@pytest.mark.slow
def test_a_run_in_fp16_on_a_resnet_on_pixels_as_they_are_without_a_test_is_exported_in_fp32(
    loaded, small_resnet_file, tmp_path, fp16_anywhere
):
    """Pixels that were not normalised are not normalised in the model."""
    options = "TRAINER.COOP.PREC fp16 TEST.NO_TEST True INPUT.TRANSFORMS ['random_resized_crop']"
    backbone = "MODEL.BACKBONE.NAME", small_resnet_file
    classifier = loaded("CoOp", *options.split(), *backbone)
    session = exported(classifier, tmp_path / "exported")
    pixels = torch.randint(256, (3, 3, 32, 32)).byte()
    (output,) = session.run(None, {"pixels": pixels.float().numpy() / 255})
    expected = classifier.predict(pixels).probabilities
    numpy.testing.assert_allclose(output, expected, atol=0.02)  # fp16 itself
    assert classifier.cfg.TRAINER.COOP.PREC == "fp16"
    assert "The run was not tested." in (tmp_path / "exported/README.md").read_text("utf-8")


def test_what_cannot_be_exported(loaded, tmp_path):
    with refuses("CoCoOp can't be exported: its texts depend on the image"):
        loaded("CoCoOp").export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "# heading",
        "[text](http://x.org)",
        "a | b",
        "`code` *strong* _it_ ~~no~~",
        "&lt;b&gt;",
        "12. two\nlines",
        "Käse-Brot, St. Bernhard's",
    ],
)
def test_markdown_shows_a_text_as_it_is(text):
    """Against a reader of Markdown: one paragraph that holds that text and nothing else."""
    reader = MarkdownIt("gfm-like", {"linkify": False, "html": True})
    for place in ("{}", "0. {}", "| a | b |\n| --- | --- |\n| x | {} |"):
        tokens = reader.parse(place.format(markdown(text)))
        inline = [token for token in tokens if token.type == "inline"][-1]
        assert {child.type for child in inline.children} <= {"text"}
        assert "".join(child.content for child in inline.children) == printable(text)

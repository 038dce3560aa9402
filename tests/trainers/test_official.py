"""Checkpoints in the authors' own format, written here from their repositories' names: read, they
answer as their formulas say, and what is none of the run's is refused."""

import json

import clip
import pytest
import torch
import torchvision.transforms as T
from PIL import Image
from yacs.config import CfgNode

import predict
from labelling import PromptedClassifier
from tests.conftest import make_method
from tests.prompting.models import pair, relative
from tests.runs import call, prompts_of, record_of, refuses
from tests.trainers.formulas import PUBLISHED
from trainers.engine.checkpoint import load_trained

NAMES = ["banded", "dotted", "striped"]
TRAINERS = ("CoOp", "CoCoOp", "KgCoOp", "MaPLe", "PromptSRC")
FOLDERS = {"MaPLe": "MultiModalPromptLearner", "PromptSRC": "VLPromptLearner"}
SETTINGS = {
    "CoOp": {"N_CTX": 4},
    "MaPLe": {"PROMPT_DEPTH": 3},
    "PromptSRC": {
        "PROMPT_DEPTH_TEXT": 3,
        "PROMPT_DEPTH_VISION": 3,
        "N_CTX_TEXT": 2,
        "N_CTX_VISION": 2,
    },
}
# ours → PromptSRC's, of prompts in two deep layers
PROMPTSRC = {"ctx": "prompt_learner.ctx", "visual.ctx": "image_encoder.VPT"}
for n in (0, 1):
    block = f"transformer.resblocks.{n + 1}.VPT_shallow"
    PROMPTSRC[f"deep_ctx.{n}"] = f"text_encoder.{block}"
    PROMPTSRC[f"visual.deep_ctx.{n}"] = f"image_encoder.{block}"
UNUSED = {"bias_vectors": torch.zeros(1, 512), "meta_net.linear1.bias": torch.zeros(5)}  # KgCoOp's


def official_name(name, own):
    """What a repository calls one of our learner's parameters."""
    if name == "PromptSRC":
        return PROMPTSRC[own]
    return f"prompt_learner.{own}" if name == "MaPLe" else own


def made(name, **settings):
    return make_method(name, pair("vit")[0], NAMES, **{**SETTINGS.get(name, {}), **settings})


def learned(name):
    """What a repository's prompt learner has, and what it has and does not use."""
    state = {
        official_name(name, own): torch.randn(value.shape) * 0.3
        for own, value in made(name).learner.state_dict().items()
    }
    return {**state, **UNUSED} if name == "KgCoOp" else state


def given_by_clip(name, stock, names):
    """What the repositories keep beside the prompts, in half precision as on their GPUs."""
    place = "prompt_learner." if name in FOLDERS else ""
    tokens = stock.token_embedding(clip.tokenize([f"X X {own}." for own in names]))
    kept = {f"{place}token_prefix": tokens[:, :1], f"{place}token_suffix": tokens[:, 3:]}
    if name in FOLDERS:
        visual = stock.visual.state_dict()
        kept["logit_scale"] = stock.logit_scale
        kept |= {f"image_encoder.{key}": value for key, value in visual.items()}
        kept |= {
            f"text_encoder.{key}": value
            for key, value in stock.state_dict().items()
            if key.startswith(("transformer.", "positional_", "ln_final.", "text_projection"))
        }
    if name == "PromptSRC":
        kept |= {f"prompt_learner.ZS_image_encoder.{key}": visual[key] for key in visual}
    return {key: value.detach().half() for key, value in kept.items()}


def write(folder, name, state, epoch=5):
    """A file as Dassl saves it after a warm-up: the schedule's successor is pickled with its
    optimiser."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1, momentum=0.9)
    successor = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    content = {
        "state_dict": state,
        "epoch": epoch,
        "optimizer": optimizer.state_dict(),
        "scheduler": {"successor": successor, "warmup_epoch": 1, "last_epoch": 1},
        "val_result": None,
    }
    place = folder / FOLDERS.get(name, "prompt_learner")
    place.mkdir(parents=True, exist_ok=True)
    torch.save(content, place / f"model.pth.tar-{epoch}")
    return folder


def config(name):
    return CfgNode({"TRAINER": {"NAME": name}, "TEST": {"FINAL_MODEL": "last_step"}})


@pytest.mark.parametrize("name, epoch", [*((name, 5) for name in TRAINERS), ("CoOp", None)])
def test_the_authors_checkpoints_answer_as_their_formulas_say(in_float64, tmp_path, name, epoch):
    """Also for other classes than those that were trained, without --load-epoch by the newest file."""
    torch.manual_seed(0)
    stock, method, state = pair("vit")[1], made(name), learned(name)
    trained = given_by_clip(name, stock, ["woven", "a grid of lines"])
    write(tmp_path, name, {**trained, **state})
    load_trained(method, str(tmp_path), config(name), epoch)
    for own, value in method.learner.state_dict().items():
        assert torch.equal(value, state[official_name(name, own)].to(value))
    images, labels = torch.randn(1, 4, 3, 32, 32), torch.zeros(4, dtype=torch.long)
    logits, _ = PUBLISHED[name](stock, method)(images, labels)
    assert relative(method(images).logits, logits) < 1e-9


@pytest.mark.parametrize(
    "name, change, settings, message",
    [
        ("MaPLe", {"image_encoder.conv1.weight": 2}, {}, "another CLIP than MODEL.BACKBONE.NAME"),
        ("CoOp", {"token_prefix": -1}, {}, "its token_prefix differs"),
        ("MaPLe", {"prompt_learner.proj.bias": None}, {}, "lacks prompt_learner.proj.bias"),
        ("MaPLe", {}, {"PROMPT_DEPTH": 2}, "has prompt_learner.compound_prompt_projections.1"),
        ("CoOp", {}, {"CSC": True}, "prompts of another shape"),
    ],
)
def test_what_is_of_another_clip_or_of_other_settings_is_refused(
    tmp_path, name, change, settings, message
):
    """change: name in the file → by what its numbers are multiplied; None: it is not there."""
    state = {**given_by_clip(name, pair("vit")[1], NAMES), **learned(name)}
    for key, factor in change.items():
        value = state.pop(key)
        if factor is not None:
            state[key] = value * factor
    write(tmp_path, name, state)
    with refuses(message):
        load_trained(made(name, **settings), str(tmp_path), config(name), 5)


@pytest.mark.parametrize("name", ["CoOp", "MaPLe"])
def test_the_authors_command_tests_their_checkpoint(run, just_trained, stock_vit, tmp_path, name):
    trainer, folder = just_trained(name)
    kept = given_by_clip(name, stock_vit, trainer.model.classnames)
    for own, value in trainer.model.learner.state_dict().items():
        kept[official_name(name, own)] = value
    place = write(tmp_path / "official", name, kept)
    record = run(name, flags=(*prompts_of(place), "--load-epoch", "5"))[1]
    assert record["metrics"]["test"] == record_of(folder)["metrics"]["test"]
    assert record["prompts_hash"] == record_of(folder)["prompts_hash"]


@pytest.fixture
def official(stock_vit, small_clip_file, tmp_path):
    """``official(name)``: a checkpoint's path, and the classifier of it under a number of tokens and
    layers that no recipe has."""

    def start(name):
        state = learned(name)
        write(tmp_path, name, {**given_by_clip(name, stock_vit, ["woven", "plaid"]), **state})
        [path] = (tmp_path / FOLDERS.get(name, "prompt_learner")).iterdir()
        return path, PromptedClassifier.from_official(path, name, NAMES, small_clip_file)

    return start


@pytest.mark.parametrize("name", TRAINERS)
def test_a_checkpoint_alone_answers_pictures_as_its_run_would(official, vit, tmp_path, name):
    """The numbers of tokens and layers are those of its prompts, whatever recipes say."""
    classifier = official(name)[1]
    method = make_method(name, vit, NAMES, **SETTINGS.get(name, {})).eval()
    load_trained(method, str(tmp_path), config(name), 5)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    shown = torch.stack([classifier.transform(T.ToPILImage()(image)) for image in pixels])
    with torch.no_grad():
        expected = method.answer(shown[None]).probability
    torch.testing.assert_close(torch.tensor(classifier.predict(pixels).probabilities), expected)


def test_predict_takes_a_checkpoint_in_the_place_of_a_run(official, small_clip_file, capsys):
    path, classifier = official("CoOp")
    picture = path.with_suffix(".png")
    Image.new("RGB", (40, 50), "teal").save(picture)
    words = ["--prompts", path, "--trainer", "CoOp", "--backbone", small_clip_file, "--json"]
    assert call(predict.main, *words, picture, "--classes", *NAMES) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["label"] == classifier.predict([picture]).labels[0]


@pytest.mark.parametrize(
    "trainer, change, message",
    [
        ("MaPLe", {}, "has no prompt_learner.ctx, so it is not MaPLe's"),
        ("CoCoOp", {}, "lacks meta_net.linear1.bias"),
        ("CDC", {}, "unknown trainer with official checkpoints 'CDC'"),
        ("CoOp", {"ctx": torch.zeros(4, 64)}, "prompts of another shape"),
        ("CoOp", {"ctx": torch.zeros(2, 4, 128)}, "prompts of another shape"),
        (
            "KgCoOp",
            {"meta_net.linear1.bias": torch.zeros(8)},
            "by CoCoOp, whose files have meta_net",
        ),
        ("CoCoOp", UNUSED, "was trained by KgCoOp, .*: give the trainer KgCoOp and not CoCoOp"),
        ("CoOp", {"ctx": torch.tensor(1.0)}, "holds no prompts: its ctx has the shape \\(\\)"),
        ("CoOp", {"ctx": torch.zeros(0, 128)}, "holds no prompts: its ctx has the shape \\(0, 128"),
        ("CoOp", {"token_prefix": torch.zeros(0, 1, 128)}, "its token_prefix differs"),
        ("CoOp", {"ctx": torch.zeros(2, 128) * 1j}, "quantized, complex, .* \\(ctx\\)"),
        ("CoOp", {"ctx": torch.zeros(2, 128).to_sparse()}, "sparse or without numbers \\(ctx\\)"),
        ("CoOp", {"ctx": torch.zeros(1).expand(2, 128)}, "without numbers \\(ctx\\)"),
        ("CoOp", {5: torch.zeros(1)}, "has tensors without names"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_with_the_cause(
    stock_vit, small_clip_file, tmp_path, trainer, change, message
):
    state = {**given_by_clip("CoOp", stock_vit, NAMES), **learned("CoOp"), **change}
    path = write(tmp_path, "CoOp", state) / "prompt_learner/model.pth.tar-5"
    with refuses(message):
        PromptedClassifier.from_official(path, trainer, NAMES, small_clip_file)


@pytest.mark.filterwarnings("ignore:.*quantize|TypedStorage")
def test_a_quantized_context_is_refused(small_clip_file, tmp_path):
    context = torch.quantize_per_tensor(torch.zeros(2, 128), 0.1, 0, torch.qint8)
    path = write(tmp_path, "CoOp", {"ctx": context}) / "prompt_learner/model.pth.tar-5"
    with refuses("tensors that are quantized, .* \\(ctx\\)"):
        PromptedClassifier.from_official(path, "CoOp", NAMES, small_clip_file)


# ---- contexts that belong to names ----

TRAINED = ["Woven_cloth", "dotted", "St. Mary's lines"]


@pytest.fixture
def specific(stock_vit, small_clip_file, tmp_path):
    """``specific(names)``: the classifier of class-specific contexts of ``TRAINED``."""
    own = torch.randn(3, 4, 128, generator=torch.Generator().manual_seed(0))
    readable = [name.replace("_", " ") for name in TRAINED]
    write(tmp_path, "CoOp", {**given_by_clip("CoOp", stock_vit, readable), "ctx": own})
    path = tmp_path / "prompt_learner/model.pth.tar-5"
    return lambda names: PromptedClassifier.from_official(path, "CoOp", names, small_clip_file)


def test_class_specific_contexts_stay_with_their_names_in_whatever_order_these_are_given(specific):
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    expected = specific(TRAINED).predict(pixels).probabilities
    order = [2, 0, 1]
    found = specific([TRAINED[number] for number in order])
    assert found.classnames == [TRAINED[number] for number in order]
    torch.testing.assert_close(
        torch.tensor(found.predict(pixels).probabilities), torch.tensor(expected)[:, order]
    )


@pytest.mark.parametrize(
    "names, message",
    [
        (["Woven_cloth", "dotted", "striped"], "and not for striped: give these 3 names"),
        (["dotted", "Woven_cloth"], "give these 3 names, in any order \\(there are 2\\)"),
        (["cat", "dog", "cow", "owl"], "and not for cat, cow, dog, owl: give these 3 names"),
    ],
)
def test_class_specific_contexts_of_other_names_are_refused_with_the_files_names(
    specific, names, message
):
    file_has = "has a context for each of 3 classes, woven cloth, dotted, st . mary 's lines"
    with refuses(f"{file_has}.*{message}"):
        specific(names)


def test_the_authors_command_refuses_class_specific_contexts_of_another_data_sets_names(
    stock_vit, tmp_path
):
    state = {**given_by_clip("CoOp", stock_vit, TRAINED), "ctx": torch.randn(3, 4, 128)}
    write(tmp_path, "CoOp", state)
    with refuses("not for banded, striped"):
        load_trained(made("CoOp", CSC=True), str(tmp_path), config("CoOp"), 5)


def test_a_file_that_does_not_name_its_classes_is_taken_by_order_and_says_so(
    stock_vit, small_clip_file, tmp_path, caplog
):
    write(tmp_path, "CoOp", {"ctx": torch.randn(3, 4, 128)})
    path = tmp_path / "prompt_learner/model.pth.tar-5"
    PromptedClassifier.from_official(path, "CoOp", TRAINED, small_clip_file)
    assert "does not say whose its class-specific contexts are" in caplog.text

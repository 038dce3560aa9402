"""Checkpoints in the authors' own format, written here from their repositories' names: read, they
answer as their formulas say, and what is none of the run's is refused."""

import json
from types import SimpleNamespace

import clip
import pytest
import torch
import torchvision.transforms as T
from PIL import Image
from yacs.config import CfgNode

import predict
from tests.conftest import make_method
from tests.prompting.models import pair, relative
from tests.runs import call, prompts_of, record_of, refuses
from tests.trainers.formulas import PUBLISHED
from trainers import PromptedClassifier
from trainers.engine.checkpoint import load_trained

NAMES = ["banded", "dotted", "striped"]
CONTEXT, LAYERS = (2, 128), (1, 2)  # tokens and width, of text and images; layers with deep prompts
LEARNED = {  # shapes of what each repository's prompt learner has, and what it has and does not use
    "CoOp": {"ctx": (4, 128)},
    "CoCoOp": {
        "ctx": (4, 128),
        "meta_net.linear1.weight": (3, 48),
        "meta_net.linear1.bias": (3,),
        "meta_net.linear2.weight": (128, 3),
        "meta_net.linear2.bias": (128,),
    },
    "KgCoOp": {
        "ctx": (4, 128),
        "bias_vectors": (1, 512),
        "meta_net.linear1.weight": (5, 5),
        "meta_net.linear1.bias": (5,),
    },
    "MaPLe": {
        "prompt_learner.ctx": CONTEXT,
        "prompt_learner.proj.weight": (128, 128),
        "prompt_learner.proj.bias": (128,),
        **{f"prompt_learner.compound_prompts_text.{n}": CONTEXT for n in (0, 1)},
        **{f"prompt_learner.compound_prompt_projections.{n}.weight": (128, 128) for n in (0, 1)},
        **{f"prompt_learner.compound_prompt_projections.{n}.bias": (128,) for n in (0, 1)},
    },
    "PromptSRC": {
        "prompt_learner.ctx": CONTEXT,
        "image_encoder.VPT": CONTEXT,
        **{
            f"{tower}_encoder.transformer.resblocks.{n}.VPT_shallow": CONTEXT
            for tower in ("text", "image")
            for n in LAYERS
        },
    },
}
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


def learned(name):
    return {key: torch.randn(*shape) * 0.3 for key, shape in LEARNED[name].items()}


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
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], 0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
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


def tree(state):
    """Dotted names as attributes, numbers among them as lists."""
    root = {}
    for key, value in state.items():
        *path, last = key.split(".")
        node = root
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value.double()

    def made(node):
        if not isinstance(node, dict):
            return node
        parts = {key: made(part) for key, part in node.items()}
        is_list = all(key.isdecimal() for key in parts)
        return [*parts.values()] if is_list else SimpleNamespace(**parts)

    return made(root)


def learner_of(name, state):
    """What the formulas take a method's parameters from."""
    if name == "PromptSRC":
        deep = {
            tower: [
                state[f"{tower}_encoder.transformer.resblocks.{n}.VPT_shallow"].double()
                for n in LAYERS
            ]
            for tower in ("text", "image")
        }
        visual = SimpleNamespace(ctx=state["image_encoder.VPT"].double(), deep_ctx=deep["image"])
        context = state["prompt_learner.ctx"].double()
        return SimpleNamespace(ctx=context, deep_ctx=deep["text"], visual=visual)
    return tree({key.removeprefix("prompt_learner."): value for key, value in state.items()})


def made(name, **settings):
    return make_method(name, pair("vit")[0], NAMES, **{**SETTINGS.get(name, {}), **settings})


def config(name):
    return CfgNode({"TRAINER": {"NAME": name}, "TEST": {"FINAL_MODEL": "last_step"}})


@pytest.mark.parametrize("epoch", [5, None])
@pytest.mark.parametrize("name", LEARNED)
def test_the_authors_checkpoints_answer_as_their_formulas_say(in_float64, tmp_path, name, epoch):
    """Also for other classes than those that were trained, without --load-epoch by the newest file."""
    torch.manual_seed(0)
    stock, method, state = pair("vit")[1], made(name), learned(name)
    trained = given_by_clip(name, stock, ["woven", "a grid of lines"])
    write(tmp_path, name, {**trained, **state})
    load_trained(method, str(tmp_path), config(name), epoch)
    published, images = PUBLISHED[name](stock, method), torch.randn(4, 3, 32, 32)
    learner, labels = learner_of(name, state), torch.zeros(4, dtype=torch.long)
    logits, _ = published.parts(learner, images, labels)
    assert relative(method(images[None]).logits[0], logits) < 1e-9


@pytest.mark.parametrize(
    "name, change, settings, message",
    [
        ("MaPLe", {"image_encoder.conv1.weight": 2}, {}, "another CLIP than MODEL.BACKBONE.NAME"),
        ("PromptSRC", {"prompt_learner.ZS_image_encoder.proj": 1.1}, {}, "another CLIP than"),
        ("CoOp", {"token_prefix": -1}, {}, "its token_prefix differs"),
        ("MaPLe", {"prompt_learner.proj.bias": None}, {}, "lacks prompt_learner.proj.bias"),
        ("MaPLe", {}, {"PROMPT_DEPTH": 2}, "has prompt_learner.compound_prompt_projections.1"),
        ("CoOp", {}, {"N_CTX": 5}, "prompts of another shape"),
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
    place = "prompt_learner." if name == "MaPLe" else ""
    state = {place + key: value for key, value in trainer.model.learner.state_dict().items()}
    kept = given_by_clip(name, stock_vit, trainer.model.classnames)
    official = write(tmp_path / "official", name, {**kept, **state})
    record = run(name, flags=(*prompts_of(official), "--load-epoch", "5"))[1]
    assert record["metrics"]["test"] == record_of(folder)["metrics"]["test"]
    assert record["prompts_hash"] == record_of(folder)["prompts_hash"]


@pytest.fixture
def official(stock_vit, small_clip_file, tmp_path):
    """``official(name, *classes, **shapes)``: a checkpoint's path, its prompts, and the classifier of
    it under a number of tokens and layers that no recipe has; shapes: of prompts, over the usual."""

    def start(name, *classes, **settings):
        state = learned(name)
        write(tmp_path, name, {**given_by_clip(name, stock_vit, ["woven", "plaid"]), **state})
        [path] = (tmp_path / FOLDERS.get(name, "prompt_learner")).iterdir()
        make = PromptedClassifier.from_official
        return path, make(path, name, classes or NAMES, small_clip_file, **settings)

    return start


@pytest.mark.parametrize("name", LEARNED)
def test_a_checkpoint_alone_answers_pictures_as_its_run_would(official, vit, tmp_path, name):
    """The numbers of tokens and layers are those of its prompts, whatever recipes say; also of other
    classes, and afterwards."""
    classifier = official(name)[1]
    method = make_method(name, vit, NAMES, **SETTINGS.get(name, {})).eval()
    load_trained(method, str(tmp_path), config(name), 5)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    shown = torch.stack([classifier.transform(T.ToPILImage()(image)) for image in pixels])
    with torch.no_grad():
        expected = method.answer(shown[None]).probability
        features = method(shown[None]).image_features.mean(dim=0)
    torch.testing.assert_close(torch.tensor(classifier.predict(pixels).probabilities), expected)
    made = torch.tensor(classifier.features(pixels))
    torch.testing.assert_close(made, torch.nn.functional.normalize(features, dim=1))
    two = classifier.with_classes(["a cat", "a dog"]).predict(pixels)
    direct = official(name, "a cat", "a dog")[1].classnames
    assert two.classnames == direct and classifier.predict(pixels).classnames == NAMES


def test_predict_takes_a_checkpoint_in_the_place_of_a_run(official, small_clip_file, capsys):
    path, classifier = official("CoOp")
    picture = path.with_suffix(".png")
    Image.new("RGB", (40, 50), "teal").save(picture)
    words = ["--prompts", path, "--trainer", "CoOp", "--backbone", small_clip_file, "--json"]
    assert call(predict.main, *words, picture, "--classes", *NAMES) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["label"] == classifier.predict([picture]).labels[0]


@pytest.mark.parametrize(
    "trainer, change, classes, message",
    [
        ("MaPLe", {}, NAMES, "has no prompt_learner.ctx, so it is not MaPLe's"),
        ("CoCoOp", {}, NAMES, "lacks meta_net.linear1.bias"),
        ("CDC", {}, NAMES, "unknown trainer with official checkpoints 'CDC'"),
        ("CoOp", {"ctx": torch.zeros(4, 64)}, NAMES, "prompts of another shape"),
        ("CoOp", {"ctx": torch.zeros(2, 4, 128)}, NAMES, "for each of 2 classes, and there are 3"),
        ("CoOp", {"token_prefix": torch.ones(2, 1, 128)}, NAMES, "its token_prefix differs"),
        ("CoOp", {"ctx": torch.zeros(4000, 128)}, NAMES, "N_CTX is 4000, it must be"),
        ("CoOp", {}, ["cat"], "give a list of at least two names"),
        ("CoOp", {}, ["cat", "Cat"], "one and the same"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_with_the_cause(
    stock_vit, small_clip_file, tmp_path, trainer, change, classes, message
):
    state = {**given_by_clip("CoOp", stock_vit, NAMES), **learned("CoOp"), **change}
    path = write(tmp_path, "CoOp", state) / "prompt_learner/model.pth.tar-5"
    with refuses(message):
        PromptedClassifier.from_official(path, trainer, classes, small_clip_file)


def test_a_file_that_is_no_official_checkpoint_is_refused(trained, small_clip_file, tmp_path):
    own = next((trained("CoOp") / "prompt_learner").iterdir())
    text = tmp_path / "model.pth.tar-1"
    text.write_text("404")
    torch.save({"ctx": torch.zeros(4, 128)}, tmp_path / "bare.pth")
    for path, message in (
        (own, "give the run's folder"),
        (text, "download it again"),
        (tmp_path / "bare.pth", "no checkpoint as Dassl saves one"),
        (tmp_path / "none.pth", "there is no file"),
    ):
        with refuses(message):
            PromptedClassifier.from_official(path, "CoOp", NAMES, small_clip_file)


@pytest.mark.parametrize(
    "words, message",
    [
        (("--prompts", "a.pth"), "--prompts says neither the trainer nor the classes"),
        (("--prompts", "a.pth", "--trainer", "CoOp"), "give --trainer and --classes too"),
        (("--run", "output", "--trainer", "CoOp"), "a run knows its own"),
    ],
)
def test_predict_says_what_a_checkpoint_needs(error_of, words, message):
    assert message in error_of(predict.main, "photo.jpg", *words)


def test_a_promise_needs_a_run(error_of):
    words = "--prompts", "a.pth", "--trainer", "CoOp", "--max-error", "0.1", "--classes", "a", "b"
    assert "or of --prompts" in error_of(predict.main, "photo.jpg", *words)

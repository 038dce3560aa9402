"""The embedded tiny CLIP: the committed weights are a CLIP of OpenAI's form, and the tool that made them is sound."""

import json
import os
import random
import re
import sys
from pathlib import Path

import clip
import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
WEIGHTS = REPOSITORY / "trainers" / "prompting" / "weights" / "tiny.pt"
sys.path.insert(0, str(REPOSITORY / "tools"))

from tiny_clip import augment, captions, drawings, evaluate, finish, image_teacher, pretrain  # noqa: E402
from tiny_clip import model as tiny  # noqa: E402

SOME_TEXTS = [
    "a photo of a bird.",
    "a drawing of a boat or aircraft.",
    "heart",
    "a photo of a warning or public sign.",
]


def our_own(state):
    """The training module with all 49408 token rows, loaded from weights in OpenAI's form."""
    layers = {
        name: len(
            {
                key.split(".")[3 if name == "visual" else 2]
                for key in state
                if key.startswith(prefix)
            }
        )
        for name, prefix in (
            ("visual", "visual.transformer.resblocks"),
            ("text", "transformer.resblocks"),
        )
    }
    model = tiny.TinyCLIP(
        list(range(tiny.VOCABULARY)),
        vision_width=len(state["visual.class_embedding"]),
        vision_layers=layers["visual"],
        text_width=len(state["ln_final.weight"]),
        text_layers=layers["text"],
        embed=state["text_projection"].shape[1],
    )
    model.load_exported(state)
    return model.eval()


@torch.no_grad()
def largest_difference(stock, ours):
    """Relative, over images and texts, of the stock implementation's features and ours."""
    images, tokens = torch.randn(5, 3, 64, 64), clip.tokenize(SOME_TEXTS)
    pairs = [
        (stock.encode_image(images), ours.visual(images)),
        (stock.encode_text(tokens), ours.encode_text(tokens)),
    ]
    return max(((a - b).abs().max() / a.abs().max()).item() for a, b in pairs)


def test_the_committed_weights_open_in_the_unmodified_clip():
    assert WEIGHTS.stat().st_size <= 16e6
    stock, preprocess = clip.load(str(WEIGHTS), device="cpu")
    state = torch.load(WEIGHTS, weights_only=True)
    assert all(value.dtype == torch.half for value in state.values() if value.is_floating_point())
    assert preprocess.transforms[0].size == stock.visual.input_resolution == 64
    assert largest_difference(stock, our_own(state)) < 1e-5


def test_the_committed_weights_have_the_model_cards_accuracy():
    """Zero-shot over all classes on the validation pictures, computed with the stock CLIP alone."""
    from datasets.drawn.emoji_font import draw_emoji

    row = re.search(
        r"the committed weights \|[^|]*\|[^|]*\| ([0-9.]+) /",
        (REPOSITORY / "docs" / "tiny-clip.md").read_text(encoding="utf-8"),
    )
    split = json.loads(
        (REPOSITORY / "datasets" / "drawn" / "openmoji_split.json").read_text(encoding="utf-8")
    )["val"]
    names = [name for _, name in sorted({(label, name) for _, label, name in split})]
    stock, preprocess = clip.load(str(WEIGHTS), device="cpu")
    with torch.no_grad():
        images = torch.stack([preprocess(draw_emoji(code)) for code, _, _ in split])
        logits, _ = stock(images, clip.tokenize([f"a photo of a {name}." for name in names]))
    accuracy = (
        100
        * (logits.argmax(1) == torch.tensor([label for _, label, _ in split])).float().mean().item()
    )
    assert accuracy == pytest.approx(float(row.group(1)), abs=1.0)  # two pictures of 203


@pytest.mark.parametrize("width", [64, 192])
def test_export_gives_a_clip_with_the_same_features(tmp_path, width):
    torch.manual_seed(0)
    used = sorted(
        {
            0,
            pretrain.START,
            pretrain.END,
            *(t for text in SOME_TEXTS for t in captions.caption_ids(text)),
        }
    )
    model = tiny.TinyCLIP(used, vision_width=width, vision_layers=2, text_width=64, text_layers=1)
    tiny.save_deflated(model.export(), tmp_path / "tiny.pt")
    stock, _ = clip.load(str(tmp_path / "tiny.pt"), device="cpu")
    assert stock.visual.transformer.resblocks[0].attn.num_heads == width // 64
    assert largest_difference(stock, our_own(stock.state_dict())) < 1e-5
    assert (stock.token_embedding.weight.abs().sum(1) > 0).nonzero().flatten().tolist() == used
    compact = torch.tensor(
        [
            [used.index(t) for t in (pretrain.START, *captions.caption_ids("heart"), pretrain.END)]
            + [0]
        ]
    )
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode_text(compact),
            stock.encode_text(clip.tokenize("heart")),
            rtol=1e-2,
            atol=1e-2,
        )
    assert (
        os.path.getsize(tmp_path / "tiny.pt") < 2e6
    )  # the token table alone is 6 MB when it is not deflated


def test_the_same_weights_give_the_same_file(tmp_path):
    state = tiny.TinyCLIP(
        [0, 1], vision_width=64, vision_layers=1, text_width=64, text_layers=1
    ).export()
    for name in "ab":
        tiny.save_deflated(state, tmp_path / f"{name}.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_looking_at_all_patches_in_another_order_changes_nothing():
    visual = tiny.TinyCLIP([0], vision_width=64, vision_layers=2).visual.eval()
    images, order = torch.randn(3, 3, 64, 64), torch.stack([torch.randperm(64) for _ in range(3)])
    torch.testing.assert_close(visual(images, order), visual(images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(visual(images, order[:, :32]), visual(images), atol=1e-3)


@pytest.mark.parametrize(
    "text, template",
    [
        ("a sparrow's nest, brown", "a photo of a {}."),
        ("5-pin plug", "{}, a type of emoji."),
        ("keycap 10", "the {}"),
    ],
)
def test_caption_tokens_are_those_of_the_whole_sentence(text, template):
    whole = clip.tokenize(template.format(text))[0]
    assert captions.caption_ids(text, template) == tuple(whole[1 : whole.argmax()].tolist())


@pytest.mark.parametrize(
    "text, name, expected",
    [
        ("red hearts", "heart", True),
        ("a boat", "boat or aircraft", True),
        ("sad face", "sad or angry face", True),
        ("angry bird", "sad or angry face", False),
        ("flag France", "country flag", False),
        ("warning sign", "warning or public sign", True),
        ("bathroom", "furniture or bathroom item", False),
        ("birdcage", "bird", False),
    ],
)
def test_what_counts_as_naming_a_class(text, name, expected):
    assert captions.names_class(text, name) is expected


def test_keywords_that_name_a_class_are_left_out_of_captions():
    concepts = {"1F426": {"label": "sparrow", "tags": ["bird", "birds", "brown", "tweet"]}}
    said = captions.Captions(concepts, ["bird"], class_words=0.0)
    rng = random.Random(0)
    assert not any("bird" in said.draw(0, rng)[0] for _ in range(200))
    often = captions.Captions(concepts, ["bird"], class_words=1.0)
    assert sum("bird" in often.draw(0, rng)[0] for _ in range(200)) > 50


def test_a_share_of_captions_is_the_class_name_where_the_class_is_known():
    concepts = {
        "1F426": {"label": "sparrow", "tags": ["brown"]},
        "1F988": {"label": "shark", "tags": ["fish"]},
    }
    said = captions.Captions(
        concepts, ["bird", "sea animal"], class_of={"1F426": "bird"}, class_captions=0.2
    )
    rng = random.Random(0)
    named = sum(said.draw(0, rng)[0] == "bird" for _ in range(2000)) / 2000
    assert abs(named - 0.2) < 0.04  # four standard errors
    assert not any("animal" in said.draw(1, rng)[0] for _ in range(200))


def test_every_class_is_named_equally_often():
    concepts = {f"{n:X}": {"label": f"thing {n}", "tags": ["brown"]} for n in range(10)}
    class_of = {f"{n:X}": "bird" if n < 8 else "tool" for n in range(10)}
    said = captions.Captions(concepts, ["bird", "tool"], class_of=class_of, class_captions=0.1)
    assert said.class_captions == pytest.approx(
        {"bird": 0.0625, "tool": 0.25}
    )  # times 8 and 2 concepts: half of 10 %, each


def test_an_icon_finds_its_concept_however_its_set_spells_it():
    names = {"beermug": "1F37A", "flagfrance": "1F1EB-1F1F7", "oldman": "1F474"}
    spelled = {
        "beer-mug": "1F37A",
        "beermug": "1F37A",
        "flag-for-flag-france": "1F1EB-1F1F7",
        "flag-for-france": "1F1EB-1F1F7",
        "old-man-2": "1F474",
        "old-man-dark": None,
    }
    assert {icon: drawings.find_concept(icon, names) for icon in spelled} == spelled


def test_a_drawing_is_centred_and_transparent_around():
    picture = drawings.render('<rect width="20" height="10" fill="#ff0000"/>', (0, 0, 20, 10))
    assert picture.shape == (64, 64, 4)
    assert picture[32, 32].tolist() == [255, 0, 0, 255]
    assert picture[4, 32, 3] == picture[60, 32, 3] == 0


def test_lines_are_drawn_around_shapes_but_not_around_lines():
    flat, drawn = (
        '<rect x="5" y="5" width="10" height="10" fill="#ff0000"/>',
        '<path d="M5 10h10" stroke="#00ff00" stroke-width="2"/>',
    )
    outlined = drawings.render(flat, (0, 0, 20, 20), stroke=0.1)
    assert outlined[32, 32].tolist() == [255, 0, 0, 255] and outlined[32, 17].tolist() == [
        0,
        0,
        0,
        255,
    ]
    assert (
        outlined[32, 14, 3] == 255 and drawings.render(flat, (0, 0, 20, 20))[32, 14, 3] == 0
    )  # half of the line is outside
    assert np.array_equal(
        drawings.render(drawn, (0, 0, 20, 20), stroke=0.1), drawings.render(drawn, (0, 0, 20, 20))
    )


def test_augmented_batches_keep_the_range_of_clips_input():
    images = torch.zeros(16, 4, 64, 64, dtype=torch.uint8)
    images[:, 0, 16:48, 16:48], images[:, 3, 16:48, 16:48] = 255, 255
    batch = augment.make_batch(images, torch.ones(16, dtype=torch.bool))
    low, high = (
        augment.normalise(torch.zeros(1, 3, 1, 1)),
        augment.normalise(torch.ones(1, 3, 1, 1)),
    )
    assert (
        batch.shape == (16, 3, 64, 64)
        and (batch >= low - 1e-5).all()
        and (batch <= high + 1e-5).all()
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A miniature of what npm installs: 24 concepts, drawn in two sets as coloured shapes."""
    root = tmp_path_factory.mktemp("node_modules")
    data = root / "emojibase-data"
    (data / "en" / "shortcodes").mkdir(parents=True)
    (data / "meta").mkdir()
    colours, shapes = (
        ("red", "green", "blue", "orange"),
        ("disc", "block", "bar", "pole", "dot", "ring"),
    )
    body = {
        "disc": '<circle cx="16" cy="16" r="14" {}/>',
        "block": '<rect x="3" y="3" width="26" height="26" {}/>',
        "bar": '<rect y="12" width="32" height="8" {}/>',
        "pole": '<rect x="12" width="8" height="32" {}/>',
        "dot": '<circle cx="16" cy="16" r="5" {}/>',
        "ring": '<circle cx="16" cy="16" r="10" stroke-width="6" {}/>',
    }
    records, icons = [], {}
    for number, (colour, shape) in enumerate((c, s) for c in colours for s in shapes):
        records.append(
            {
                "label": f"{colour} {shape}",
                "hexcode": f"1F7{number:02X}",
                "tags": [colour, shape, "thing"],
                "group": 8,
                "subgroup": 1,
            }
        )
        paint = f'stroke="{colour}" fill="none"' if shape == "ring" else f'fill="{colour}"'
        icons[f"{colour}-{shape}"] = {"body": body[shape].format(paint)}
    (data / "en" / "data.json").write_text(json.dumps(records))
    (data / "en" / "messages.json").write_text(
        json.dumps({"subgroups": [{"order": 1, "key": "plain-thing"}]})
    )
    (data / "meta" / "unicode-names.json").write_text("{}")
    for name in ("noto", "twemoji"):
        (root / "@iconify-json" / name).mkdir(parents=True)
        (root / "@iconify-json" / name / "icons.json").write_text(
            json.dumps({"icons": icons, "width": 32, "height": 32})
        )
    return root


def small_run(sources, output, *options):
    return pretrain.main(
        [
            "--sources",
            str(sources),
            "--output",
            str(output),
            "--steps",
            "6",
            "--decay-steps",
            "2",
            "--batch",
            "16",
            "--phrases",
            "4",
            "--width",
            "64",
            "--layers",
            "1",
            "--teach-text",
            "0",
            "--teach-image",
            "0",
            "--held-out",
            "0.1",
            "--every",
            "3",
            "--no-evaluation",
            *options,
        ]
    )


def test_a_stopped_pretraining_continues_to_the_same_weights(sources, tmp_path, one_thread):
    small_run(sources, tmp_path / "whole")
    small_run(sources, tmp_path / "parts", "--stop-at", "3")
    small_run(sources, tmp_path / "parts")
    whole, parts = (
        torch.load(tmp_path / name / "tiny.pt", weights_only=True) for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert len((tmp_path / "parts" / "curve.jsonl").read_text().splitlines()) == 2
    clip.load(str(tmp_path / "parts" / "tiny.pt"), device="cpu")
    with pytest.raises(SystemExit, match="other settings"):
        small_run(sources, tmp_path / "parts", "--seed", "2")
    with pytest.raises(SystemExit, match="too late"):
        small_run(sources, tmp_path / "parts", "--steps", "60")


def test_a_later_stage_begins_where_the_earlier_one_ended(sources, tmp_path, one_thread):
    small_run(sources, tmp_path / "first")
    end = tmp_path / "first" / "checkpoint.pt"
    small_run(
        sources, tmp_path / "second", "--begin-from", str(end), "--steps", "9", "--lr", "1e-4"
    )
    first, second = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("first", "second")
    )
    assert (first["step"], second["step"]) == (6, 9)
    moved = (second["model"]["text_projection"] - first["model"]["text_projection"]).abs().max()
    assert 0 < moved < 1e-3  # three small steps from there, not a fresh start


def test_weights_can_be_taken_up_again(sources, tmp_path, one_thread):
    first = small_run(sources, tmp_path / "first")
    again = small_run(
        sources,
        tmp_path / "again",
        "--begin-from",
        str(tmp_path / "first" / "tiny.pt"),
        "--steps",
        "1",
        "--lr",
        "0",
    )
    for key, before in first.state_dict().items():
        after = again.state_dict()[key]
        if key.startswith("look."):
            continue  # of the image teacher, not in the file
        torch.testing.assert_close(
            after, before, rtol=1e-3, atol=1e-4, msg=key
        )  # the file holds fp16


def test_principal_components_keep_what_is_alike():
    features = np.random.default_rng(0).normal(size=(40, 30))
    turned = image_teacher.principal(features, 30)
    centred = features / np.linalg.norm(features, axis=1, keepdims=True)
    centred = centred - centred.mean(0)
    centred = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(
        turned @ turned.T, centred @ centred.T, atol=1e-5
    )  # all axes: only turned
    fewer = image_teacher.principal(features, 5)
    np.testing.assert_allclose(np.linalg.norm(fewer, axis=1), 1, atol=1e-5)


def test_the_image_tower_learns_what_the_image_teacher_sees(sources, tmp_path, one_thread):
    # instead of the teacher, which is not installed: something that sees colour and size
    thin = drawings.load_drawings(sources, tmp_path / "drawings.npz")[0][1]  # (48, 64, 64, 4)
    seen = (
        thin.reshape(48, -1, 4).mean(axis=1) @ np.random.default_rng(0).normal(size=(4, 1280))
    ).astype(np.float32)
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "looks.npy", seen)
    small_run(sources, tmp_path / "with", "--steps", "60", "--teach-look", "5", "--lr", "3e-3")
    curve = [
        json.loads(line)["loss_look"]
        for line in (tmp_path / "with" / "curve.jsonl").read_text().splitlines()
    ]
    assert curve[-1] < 0.8 * curve[0]
    np.save(tmp_path / "without" / "looks.npy", seen[:7])
    with pytest.raises(SystemExit, match="7 drawings, there are 48"):
        small_run(sources, tmp_path / "without", "--teach-look", "5")


def test_towers_are_mixed_with_shares_of_their_own():
    states = [
        {"visual.proj": torch.tensor([1.0]), "text_projection": torch.tensor([1.0])},
        {"visual.proj": torch.tensor([2.0]), "text_projection": torch.tensor([4.0])},
    ]
    mixed = finish.mixture(states, image=[0.25, 0.75], text=[-1, 2])
    assert mixed == {"visual.proj": torch.tensor([1.75]), "text_projection": torch.tensor([7.0])}


def test_the_last_stage_trains_the_text_tower_alone(sources, tmp_path, one_thread, monkeypatch):
    def random_teacher(said, _):
        drawn = (
            np.random.default_rng(0)
            .normal(size=(len(said.labels) + len(said.general), 8))
            .astype(np.float32)
        )
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        return drawn[: len(said.labels)], drawn[len(said.labels) :]

    class TwoClasses(evaluate.Benchmark):
        names = ["bird", "heart"]
        images = {part: torch.randn(4, 3, 64, 64) for part in ("train", "val")}
        labels = {part: torch.tensor([0, 0, 1, 1]) for part in ("train", "val")}

        def __init__(self):
            """Draws nothing."""

    monkeypatch.setattr(pretrain, "teach", random_teacher)
    monkeypatch.setattr(finish, "Benchmark", TwoClasses)
    before = small_run(sources, tmp_path, "--width", "192", "--layers", "4", "--stop-at", "1")
    weights = str(tmp_path / "tiny.pt")
    after = finish.main(
        [
            "--sources",
            str(sources),
            "--output",
            str(tmp_path),
            "--weights",
            weights,
            weights,
            "--image",
            "0.5",
            "0.5",
            "--text",
            "-1",
            "2",
            "--stop-at",
            "2",
            "--batch",
            "8",
            "--phrases",
            "4",
        ]
    )
    moved = {
        key
        for key, value in after.state_dict().items()
        if not torch.allclose(value, before.state_dict()[key], atol=2e-3)
    }
    assert moved and not any(key.startswith("visual.") for key in moved)
    with pytest.raises(SystemExit):
        finish.parse(
            [
                "--sources",
                "a",
                "--output",
                "b",
                "--weights",
                "c",
                "--image",
                "1",
                "--text",
                "1",
                "2",
            ]
        )


def test_zero_shot_over_a_half_only_chooses_within_that_half():
    judge = object.__new__(evaluate.Benchmark)
    judge.names, judge.labels = ["a", "b", "c"], {"val": torch.tensor([0, 1, 2, 2])}
    features = {"val": torch.tensor([[1.0, 0, 0], [0, 0.5, 0.8], [0, 0, 1.0], [0.9, 0, 0.1]])}
    found = judge.zero_shot(features, lambda texts: torch.eye(3), "val")["a photo of a {}."]
    assert found["all"] == 50.0  # the second looks like c, the fourth like a
    assert found["base"] == 100.0  # a and b: c cannot be chosen
    assert found["new"] == 100.0
    assert found["classes"] == {"a": 100.0, "b": 0.0, "c": 50.0}


def test_a_missing_source_is_named(tmp_path, sources):
    (tmp_path / "emojibase-data").symlink_to(sources / "emojibase-data")
    with pytest.raises(FileNotFoundError, match="@iconify-json"):
        drawings.render_sets(tmp_path)


def test_drawings_are_kept_and_not_drawn_again(sources, tmp_path, monkeypatch):
    first = drawings.load_drawings(sources, tmp_path / "drawings.npz")
    monkeypatch.setattr(drawings, "render", lambda *_: pytest.fail("drawn again"))
    again = drawings.load_drawings(sources, tmp_path / "drawings.npz")
    assert np.array_equal(first[0], again[0]) and first[1:] == again[1:] and len(first[1]) == 48
    assert os.listdir(tmp_path) == ["drawings.npz"]


def test_held_out_concepts_are_whole_and_never_seen(sources, tmp_path):
    args = pretrain.parse(
        [
            "--sources",
            str(sources),
            "--output",
            str(tmp_path),
            "--held-out",
            "0.5",
            "--teach-text",
            "0",
            "--teach-image",
            "0",
            "--batch",
            "4",
        ]
    )
    material = pretrain.Material(args)
    assert 4 < len(material.captions.codes) < 20
    assert set(material.concepts.tolist()) == set(range(len(material.captions.codes)))
    assert pretrain.Material(args).captions.codes == material.captions.codes

"""Models of the package ``open_clip`` on our towers against the package's own encoders: features to 1e-5, gradients to 1e-4."""

import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.prompting.models import noisy
from tests.prompting.test_encoders import relative
from trainers import PromptedClassifier
from trainers.common.errors import UserError
from trainers.prompting.backbone import build_backbone, load_backbone
from trainers.prompting.positions import interpolate
from trainers.prompting.prompts import embed, start_embedding
from trainers.prompting.tokens import class_tokens, tokenize
from trainers.prompting.weights import open_clip_models

open_clip = pytest.importorskip(
    "open_clip", reason="open_clip_torch is not installed: pip install '.[open_clip]'"
)

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3}
VISION = {"image_size": 32, "layers": 3, "width": 96, "head_width": 24, "patch_size": 8}
SMALL = {
    "small-gelu": {"embed_dim": 48, "vision_cfg": VISION, "text_cfg": TEXT},
    "small-gelu-quickgelu": {
        "embed_dim": 48,
        "quick_gelu": True,
        "vision_cfg": VISION,
        "text_cfg": TEXT,
    },
    "small-wide": {
        "embed_dim": 48,
        "init_logit_bias": -10,
        "nonscalar_logit_scale": True,
        "vision_cfg": {**VISION, "mlp_ratio": 2.51},
        "text_cfg": {**TEXT, "mlp_ratio": 3, "context_length": 40},
    },
    "small-resnet": {
        "embed_dim": 48,
        "text_cfg": TEXT,
        "vision_cfg": {
            "image_size": 64,
            "layers": [1, 1, 1, 1],
            "width": 8,
            "head_width": 32,
            "patch_size": None,
        },
    },
}
NAMES = [
    "cat",
    "a very long class name with many, many words, that goes on: and on; and on",
    "person_on_a_bike",
]


@pytest.fixture(scope="module")
def define(tmp_path_factory):
    """Makes a model known to open_clip: ``define(name, config)``."""
    folder = tmp_path_factory.mktemp("configs")

    def write(name, config):
        (folder / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder / f"{name}.json")

    for name, config in SMALL.items():
        write(name, config)
    return write


@pytest.fixture(scope="module")
def tokenizer():
    return open_clip.get_tokenizer("ViT-B-16")


@pytest.fixture(scope="module")
def model(define, tmp_path_factory):
    """``model(name)`` → open_clip's own small model, its name for us, and ours with its weights; each made once."""
    made, folder = {}, tmp_path_factory.mktemp("weights")

    def make(name):
        if name not in made:
            theirs = noisy(open_clip.create_model(name))
            torch.save(theirs.state_dict(), folder / f"{name}.pt")
            full_name = f"open_clip:{name}/{folder}/{name}.pt"
            made[name] = theirs, full_name, load_backbone(full_name)
        return made[name]

    return make


def their_text_features(model, embeddings, end, deep_prompts=()):
    """(N, E) through open_clip's modules, all positions; embeddings (N, positions, D), deep prompts (n, D)."""
    x = embeddings + model.positional_embedding
    for layer, block in enumerate(model.transformer.resblocks):
        if 0 < layer <= len(deep_prompts):
            prompt = deep_prompts[layer - 1].expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], prompt, x[:, 1 + prompt.shape[1] :]], dim=1)
        x = block(x, attn_mask=model.attn_mask)
    return model.ln_final(x)[torch.arange(len(x)), end] @ model.text_projection


@pytest.mark.parametrize("name", SMALL)
def test_features_are_those_of_encode_image_and_encode_text(model, name):
    theirs, _, ours = model(name)
    size = SMALL[name]["vision_cfg"]["image_size"]
    images, tokens = (
        torch.randn(1, 3, 3, size, size),
        open_clip.get_tokenizer(name)(["a photo of a cat.", "two dogs", "a"]),
    )
    assert relative(ours.image(images)[0], theirs.encode_image(images[0])) < 1e-5
    assert relative(ours.text.encode_tokens(tokens), theirs.encode_text(tokens)) < 1e-5
    assert (
        torch.equal(ours.logit_scale, theirs.logit_scale.exp().squeeze())
        and ours.logit_scale.dim() == 0
    )
    assert (ours.image.image_size, ours.embed_dim, ours.text.context_length) == (
        size,
        48,
        SMALL[name]["text_cfg"]["context_length"],
    )


@pytest.mark.parametrize("name", ["small-gelu", "small-gelu-quickgelu", "small-wide"])
def test_prompted_texts_match_in_value_and_gradient(model, name):
    theirs, _, ours = model(name)
    torch.manual_seed(0)
    context, deep = (
        torch.randn(1, 4, 64, requires_grad=True),
        torch.randn(1, 4, 64, requires_grad=True),
    )
    weight = torch.randn(len(NAMES), 48)
    tokens = class_tokens(NAMES, ours.text.context_length - 5)
    prefix = torch.cat([start_embedding(ours.text)[None], context], dim=1)
    features = ours.text(prefix, embed(ours.text, tokens.ids)[None], tokens.end[None], [deep])[0]
    padded = tokenize(
        [f"X X X X {name.replace('_', ' ')}." for name in NAMES], ours.text.context_length
    )
    embedded = theirs.token_embedding(padded)
    embedded = torch.cat(
        [embedded[:, :1], context.expand(len(NAMES), -1, -1), embedded[:, 5:]], dim=1
    )
    expected = their_text_features(theirs, embedded, padded.argmax(1), [deep[0]])
    assert relative(features, expected) < 1e-5
    for grad, reference in zip(
        *(
            torch.autograd.grad((found * weight).sum(), [context, deep])
            for found in (features, expected)
        )
    ):
        assert relative(grad, reference) < 1e-4


@pytest.mark.parametrize("name", ["small-gelu", "small-gelu-quickgelu"])
def test_prompted_images_match_in_value_and_gradient(model, name):
    theirs, _, ours = model(name)
    torch.manual_seed(0)
    images, prompts = torch.randn(3, 3, 32, 32), torch.randn(2, 96, requires_grad=True)
    weight, visual = torch.randn(3, 48), theirs.visual
    features = ours.image(images[None], prompts[None])[0]
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(3, 1, -1), x], dim=1) + visual.positional_embedding
    x = visual.transformer(visual.ln_pre(torch.cat([x, prompts.expand(3, -1, -1)], dim=1)))
    expected = visual.ln_post(x[:, 0]) @ visual.proj
    assert relative(features, expected) < 1e-5
    grads = [
        torch.autograd.grad((found * weight).sum(), prompts)[0] for found in (features, expected)
    ]
    assert relative(*grads) < 1e-4


@pytest.mark.parametrize("dtype, tolerance", [(torch.float16, 2e-2), (torch.bfloat16, 1e-1)])
def test_half_precision_stays_near_fp32(model, dtype, tolerance):
    theirs, name, _ = model("small-gelu")
    half, images, tokens = (
        load_backbone(name).to(dtype),
        torch.randn(2, 3, 32, 32),
        tokenize(NAMES, 77),
    )
    assert relative(half.text.encode_tokens(tokens).float(), theirs.encode_text(tokens)) < tolerance
    assert relative(half.image(images[None])[0].float(), theirs.encode_image(images)) < tolerance


def test_the_two_activations_are_not_the_same(model):
    theirs, _, ours = model("small-gelu")
    images = torch.randn(1, 2, 3, 32, 32)
    other = build_backbone(theirs.state_dict(), head_width=24, text_head_width=32)
    assert relative(other.image(images), ours.image(images)) > 1e-3


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20))
@settings(max_examples=100, deadline=None)
def test_clips_tokenizer_is_open_clips(tokenizer, text):
    assert torch.equal(tokenize([text], 256), tokenizer([text], 256).int())


@pytest.mark.parametrize(
    "name", ["ViT-B-32", "ViT-L-14-336", "ViT-g-14", "ViT-H-14", "ViT-bigG-14", "RN50x64"]
)
def test_the_heads_and_sizes_of_large_models(name):
    config = open_clip.get_model_config(name)
    with torch.device("meta"):  # shapes without numbers
        theirs = open_clip.CLIP(**config)
        heads = (
            config["vision_cfg"].get("head_width", 64),
            config["text_cfg"]["width"] // config["text_cfg"]["heads"],
        )
        ours = build_backbone(theirs.state_dict(), name, *heads)
    assert (
        sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) - 1
    )  # the scale is no parameter here
    assert (
        ours.text.transformer.resblocks[0].attn.heads
        == theirs.transformer.resblocks[0].attn.num_heads
    )
    if ours.takes_visual_prompts:
        assert (
            ours.image.transformer.resblocks[0].attn.heads
            == theirs.visual.transformer.resblocks[0].attn.num_heads
        )
    else:
        assert ours.image.network.attnpool.num_heads == theirs.visual.attnpool.num_heads
    assert ours.image.image_size == config["vision_cfg"]["image_size"]


# ---- what can't be used ----


@pytest.mark.parametrize(
    "part, change, message",
    [
        (
            "text_cfg",
            {"no_causal_mask": True},
            r"its text encoder is not causal \(text_cfg.no_causal_mask\)",
        ),
        (
            "text_cfg",
            {"pool_type": "last"},
            r"not read at the token of the highest id \(text_cfg.pool_type\)",
        ),
        ("text_cfg", {"output_tokens": True}, "text_cfg.output_tokens is True"),
        ("text_cfg", {"embed_cls": True}, "text_cfg.embed_cls is True"),
        ("text_cfg", {"proj_bias": True}, "text_cfg.proj_bias is True"),
        ("text_cfg", {"norm_kwargs": {"eps": 1e-6}}, "text_cfg.norm_kwargs is"),
        (
            "text_cfg",
            {"hf_tokenizer_name": "bert"},
            r"its tokenizer is not CLIP's \(text_cfg.hf_tokenizer_name\)",
        ),
        ("text_cfg", {"vocab_size": 32000}, "text_cfg.vocab_size is 32000"),
        (
            "vision_cfg",
            {"pool_type": "avg"},
            r"not read at the class token \(vision_cfg.pool_type\)",
        ),
        (
            "vision_cfg",
            {"attentional_pool": True},
            r"pools by attention \(vision_cfg.attentional_pool\)",
        ),
        ("vision_cfg", {"output_tokens": True}, "vision_cfg.output_tokens is True"),
        ("vision_cfg", {"no_ln_pre": True}, "vision_cfg.no_ln_pre is True"),
        ("vision_cfg", {"ls_init_value": 1e-4}, "vision_cfg.ls_init_value is 0.0001"),
        ("vision_cfg", {"image_size": [32, 64]}, r"vision_cfg.image_size is \[32, 64\]"),
        (None, {"custom_text": True}, r"its towers are others than CLIP's \(custom_text\)"),
        (None, {"multimodal_cfg": {"width": 8}}, "multimodal_cfg is"),
    ],
)
def test_parts_that_our_towers_cannot_express_are_refused(define, part, change, message):
    config = SMALL["small-gelu"]
    define(
        "odd",
        {**config, **change} if part is None else {**config, part: {**config[part], **change}},
    )
    with pytest.raises(
        UserError, match=f"open_clip:odd/x can't be used: .*{message}.*such as ViT-B-16"
    ):
        load_backbone("open_clip:odd/x")


@pytest.mark.parametrize(
    "name, message",
    [
        ("ViT-B-16-SigLIP", "its image encoder is one of timm's.*its text encoder is not causal"),
        ("coca_ViT-B-32", "pools by attention"),
        ("ViT-L-14-CLIPA", "not causal.*tokenizer"),
        ("convnext_base", "timm"),
        ("xlm-roberta-base-ViT-B-32", "one of transformers'"),
    ],
)
def test_other_families_are_refused_by_name(name, message):
    with pytest.raises(UserError, match=message):
        load_backbone(f"open_clip:{name}/some_weights")


def test_every_model_of_the_package_is_taken_or_refused_by_its_config_and_all_of_openais_sizes_are_taken():
    defaults = {
        "": {"custom_text": False},
        "vision_cfg": asdict(open_clip.CLIPVisionCfg()),
        "text_cfg": asdict(open_clip.CLIPTextCfg()),
    }
    taken = set()
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        try:
            open_clip_models.check_expressible(name, config, defaults)
            taken.add(name)
        except UserError:
            continue
        assert not {"timm_model_name"} & config["vision_cfg"].keys() and not config["text_cfg"].get(
            "no_causal_mask"
        )
    assert taken >= {
        "RN50",
        "RN101",
        "RN50x4",
        "RN50x16",
        "RN50x64",
        "ViT-B-32",
        "ViT-B-16",
        "ViT-L-14",
        "ViT-L-14-336",
        "ViT-H-14",
        "ViT-g-14",
        "ViT-bigG-14",
        "ViT-B-16-quickgelu",
    }


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "open_clip:ViT-B16/openai",
            r"open_clip has no model 'ViT-B16' \(did you mean ViT-B-16\?\)",
        ),
        ("open_clip:", "open_clip has no model ''"),
        (
            "open_clip:ViT-B-16",
            "needs weights: give open_clip:ViT-B-16/<weights> with the path of a file or one of .*laion2b_s34b_b88k",
        ),
        (
            "open_clip:ViT-B-16/laion2b_s34b_b8k",
            r"no weights 'laion2b_s34b_b8k', which is no file either \(did you mean laion2b_s34b_b88k\?\)",
        ),
        (
            "open_clip:ViT-B-16/dfn2b",
            "trained with the activation quick_gelu, ViT-B-16 has gelu: use open_clip:ViT-B-16-quickgelu/dfn2b",
        ),
        ("open_clip:ViT-B-32-quickgelu/laion2b_s34b_b79k", "no weights 'laion2b_s34b_b79k'"),
    ],
)
def test_names_that_are_not_known(name, message):
    with pytest.raises(UserError, match=message):
        load_backbone(name)


@pytest.mark.parametrize(
    "facts, file",
    [
        (
            {"hf_hub": "laion/a-CLIP/"},
            r"open_clip_model.safetensors \(or open_clip_pytorch_model.bin\) of laion/a-CLIP on the Hugging Face hub",
        ),
        (
            {"hf_hub": "laion/a-CLIP/b16.pt", "url": "https://a.org/other.pt"},
            "b16.pt of laion/a-CLIP on the Hugging Face hub",
        ),
        (
            {"hf_hub": "", "url": "https://a.org/b16-123.pt"},
            "b16-123.pt from https://a.org/b16-123.pt",
        ),
    ],
)
def test_weights_that_cannot_be_downloaded_say_which_file_and_how_to_name_it(
    monkeypatch, facts, file
):
    def no_network(facts, cache_dir=None):
        raise FileNotFoundError("no route\nto host")

    monkeypatch.setattr(open_clip, "download_pretrained", no_network)
    monkeypatch.setattr(
        open_clip, "get_pretrained_cfg", lambda model, tag: {"quick_gelu": False, **facts}
    )
    with pytest.raises(
        UserError,
        match=r"open_clip:ViT-B-16/a_tag can't be downloaded \(no route to host\); "
        f"fetch the file {file}, put it anywhere, and give MODEL.BACKBONE.NAME open_clip:ViT-B-16/path/to/the/file",
    ):
        load_backbone("open_clip:ViT-B-16/a_tag")


def test_a_file_of_another_model_is_refused(model, tmp_path, small_clip_file):
    with pytest.raises(
        UserError,
        match=r"small.pt holds another model than small-gelu: text_projection is \(128, 48\), not \(64, 48\)",
    ):
        load_backbone(f"open_clip:small-gelu/{small_clip_file}")
    state = model("small-gelu")[0].state_dict()
    torch.save({**state, "visual.conv1.weight": torch.zeros(96, 3, 4, 4)}, tmp_path / "patches.pt")
    with pytest.raises(
        UserError, match="patches.pt holds another model than small-gelu: visual.conv1.weight"
    ):
        load_backbone(f"open_clip:small-gelu/{tmp_path / 'patches.pt'}")


# ---- whole runs ----


def test_a_run_on_an_open_clip_model_is_loaded_as_it_was_and_not_with_the_other_activation(
    model, run
):
    theirs, name, _ = model("small-gelu")
    trainer, record, folder = run("CDC", "MODEL.BACKBONE.NAME", name)
    assert record["config"]["MODEL"]["BACKBONE"]["NAME"] == name
    classifier = PromptedClassifier.load(str(folder))
    image = torch.randint(256, (1, 3, 32, 32)).byte()
    images = (
        image.float() / 255 - torch.tensor(trainer.cfg.INPUT.PIXEL_MEAN)[:, None, None]
    ) / torch.tensor(trainer.cfg.INPUT.PIXEL_STD)[:, None, None]
    with torch.no_grad():
        expected = trainer.model_inference(images[None])
    torch.testing.assert_close(torch.from_numpy(classifier.predict(image).probabilities), expected)
    with pytest.raises(UserError, match="which has other weights"):
        PromptedClassifier.load(
            str(folder), backbone=name.replace("small-gelu/", "small-gelu-quickgelu/")
        )


def test_pixels_have_to_be_normalised_as_in_the_training_of_the_weights(
    model, run, refusal, monkeypatch
):
    path = model("small-gelu")[1].partition("/")[2]
    half = (0.5, 0.5, 0.5)
    monkeypatch.setattr(
        open_clip,
        "get_pretrained_cfg",
        lambda model, tag: {"mean": half, "std": half, "quick_gelu": False},
    )
    monkeypatch.setattr(open_clip, "download_pretrained", lambda facts, cache_dir=None: path)
    name = "open_clip:small-gelu/some_tag"
    assert (
        f"INPUT.PIXEL_MEAN is [0.485, 0.456, 0.406], {name} was trained with [0.5, 0.5, 0.5]: give that"
        in refusal(trainer="CoOp", backbone=name)
    )
    assert "INPUT.PIXEL_STD is" in refusal(
        "INPUT.PIXEL_MEAN", str(list(half)), trainer="CoOp", backbone=name
    )
    _, record, _ = run(
        "CoOp",
        "MODEL.BACKBONE.NAME",
        name,
        "INPUT.PIXEL_MEAN",
        str(list(half)),
        "INPUT.PIXEL_STD",
        str(list(half)),
    )
    assert record["metrics"]["test"]["images"] > 0


@pytest.mark.parametrize("grid", [2, 4, 7])
def test_positions_are_interpolated_as_open_clip_does_on_loading(model, grid):
    from open_clip.model import resize_pos_embed

    theirs, _, _ = model("small-gelu")
    state = {"visual.positional_embedding": theirs.visual.positional_embedding.clone()}
    expected = open_clip.CLIP(48, {**VISION, "image_size": grid * 8}, TEXT)
    resize_pos_embed(state, expected)
    torch.testing.assert_close(
        interpolate(theirs.visual.positional_embedding, grid), state["visual.positional_embedding"]
    )

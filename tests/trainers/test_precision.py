"""fp16 is CLIP's own: the same weights in float16, the same teachers in fp32; on a CPU it is
replaced."""

import copy

import pytest
import torch
from clip.model import convert_weights

from tests.conftest import make_method, random_clip
from tests.prompting.models import relative
from tests.reference import unit
from trainers import method_class
from trainers.prompting.backbone import build_backbone
from trainers.prompting.precision import autocast_dtype, in_half
from trainers.prompting.transformer import ImageEncoder


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_fp16_keeps_in_fp32_what_clip_keeps(kind, request):
    stock = copy.deepcopy(request.getfixturevalue(f"stock_{kind}"))
    ours = in_half(build_backbone(stock.state_dict()))
    convert_weights(stock)
    towers = {**ours.text.state_dict(), "logit_scale": ours.log_scale}
    for key, value in ours.image.state_dict().items():
        towers[f"visual.{key}"] = value
    expected = {key: value.dtype for key, value in stock.state_dict().items()}
    assert {key: value.dtype for key, value in towers.items()} == expected
    assert {torch.float16, torch.float32} <= set(expected.values())


def test_features_in_fp16_are_clips_own(stock_vit):
    """Text and image features of both in fp16 differ by no more than roundings do, a tenth of what
    separates either from fp32."""
    stock, exact = copy.deepcopy(stock_vit), build_backbone(stock_vit.state_dict())
    ours = in_half(exact)
    convert_weights(stock)
    torch.manual_seed(0)
    images = torch.randn(4, 3, 32, 32)
    theirs, mine = stock.encode_image(images.half()).float(), ours.image(images[None])[0].float()
    truth = exact.image(images[None])[0]
    assert ours.log_scale == exact.log_scale
    assert (mine - truth).norm() < 1.2 * (theirs - truth).norm()
    assert relative(mine, theirs) < 2e-3


@pytest.mark.parametrize(
    "name, text, image",
    [
        ("VPT", torch.float32, torch.float32),
        ("ProGrad", torch.float32, torch.float32),
        ("PromptSRC", torch.float32, torch.float16),
        ("KgCoOp", torch.float16, torch.float16),
    ],
)
def test_teachers_are_in_the_precision_of_the_official_code(
    run, vit, monkeypatch, name, text, image, fp16_anywhere
):
    """VPT's encoders, ProGrad's whole teacher and PromptSRC's texts are .float() there; PromptSRC's
    frozen images and KgCoOp's texts are not."""
    trainer, _, _ = run(name, f"TRAINER.{name.upper()}.PREC", "fp16", "OPTIM.MAX_EPOCH", "1")
    assert trainer.model.towers.teacher.text.text_projection.dtype == text
    seen = []
    encode = ImageEncoder.forward

    def noted(self, images, prompts=(), *further):
        if not prompts:
            seen.append(self.conv1.weight.dtype)
        return encode(self, images, prompts, *further)

    monkeypatch.setattr(ImageEncoder, "forward", noted)
    images = torch.randn(1, 2, 3, 32, 32)
    trainer.model.loss(trainer.model.scores(images), torch.tensor([0, 1]))
    if name == "VPT":
        assert trainer.model.backbone.image.conv1.weight.dtype == image
    else:
        assert seen[-1] == image, "the teacher's images come last"
    given = unit(trainer.model.hand_crafted)
    del trainer.model.hand_crafted
    trainer.model.towers.teacher = trainer.model.towers.backbone = vit
    error = (given - unit(trainer.model.hand_crafted)).abs().max()
    assert error < 1e-6 if text == torch.float32 else error > 1e-6


def test_fp16_on_a_cpu_is_replaced_with_one_warning(run):
    trainer, record, folder = run("CoOp", "TRAINER.COOP.PREC", "fp16", "OPTIM.MAX_EPOCH", "1")
    assert trainer.model.backbone.text.text_projection.dtype == torch.float32
    assert record["precision"] == "fp32"
    assert record["config"]["TRAINER"]["COOP"]["PREC"] == "fp16", "what was asked for"
    assert (folder / "log.txt").read_text().count("fp16 is up to 19 times slower") == 1


def added(name, precision):
    """What a method's adapters change in the features (B + K, E) of a CLIP of 12 layers at their
    start."""
    torch.manual_seed(0)
    settings = {"ADAPTER_START": 5, "ADAPTER_END": 12} if name == "MMA" else {}
    clip = build_backbone(random_clip(vision_layers=12, transformer_layers=12).state_dict())
    method = make_method(name, clip, ["cat", "bus"], dataset="", PREC=precision, **settings).eval()
    images = torch.randn(1, 4, 3, 32, 32)
    if name == "CLIPLoRA":  # which starts as CLIP itself
        for layer in [*method.learner.text, *method.learner.image]:
            torch.nn.init.normal_(layer.up, std=0.01)
    with torch.no_grad(), method.towers.autocast():
        prompts = method.learner()
        image = (
            method.towers.encode_images(images, prompts)[0] - method.towers.encode_images(images)[0]
        )
        text = method.towers.encode_texts(prompts)[0] - method.towers.teacher.encode_classes(
            "a photo of a {}.", method.classnames
        )
    return torch.cat([image, text])


@pytest.mark.parametrize("name", ["MMA", "MMRL", "CLIPLoRA"])
def test_amp_does_not_drown_what_these_methods_add(name):
    """Their authors' amp was fp16: with a scaler on GPUs, whichever; a CPU computes in fp32."""
    exact = added(name, "fp32")
    assert relative(added(name, "amp"), exact) < 1e-3
    assert method_class(name).official_precision.amp_is_fp16
    assert autocast_dtype("amp", torch.device("cuda"), amp_is_fp16=True) == torch.float16

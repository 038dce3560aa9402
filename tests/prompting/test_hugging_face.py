"""CLIPs in Hugging Face's format: the same weights are the same model, to the bit."""

import json

import pytest
import torch

from tests.conftest import GOLDEN
from tests.prompting.models import CONFIG, assert_same, double, exact
from tests.reference import unit
from tests.runs import refuses
from trainers.prompting.backbone import load_backbone
from trainers.prompting.hashes import tensor_hash

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install '.[transformers]'"
)
PIXELS = {"image_mean": [0.5, 0.4, 0.4], "image_std": [0.2, 0.3, 0.3]}


def changed(**change):
    """The config with other settings, and those of a tower over its own."""
    towers = {
        name: {**CONFIG[name], **change.pop(name, {})} for name in ("vision_config", "text_config")
    }
    return {**CONFIG, **towers, **change}


@pytest.fixture
def folder(tmp_path):
    """``folder(config, pixels)``: a model as ``transformers`` itself saves it."""

    def make(config=CONFIG, pixels=PIXELS, weights=CONFIG):
        torch.manual_seed(0)
        model = transformers.CLIPModel(transformers.CLIPConfig(**weights)).eval()
        model.save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(config))
        if pixels is not None:
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(pixels))
        return model, str(tmp_path)

    return make


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_features_are_those_of_transformers(folder, activation):
    text = {"hidden_act": activation, "num_attention_heads": 4}
    config = changed(text_config=text, vision_config={"hidden_act": activation})
    theirs, place = folder(config, weights=config)
    ours = load_backbone(place)
    assert ours.normalization == (PIXELS["image_mean"], PIXELS["image_std"])
    ours, theirs, images = ours.double(), exact(theirs), double(1, 2, 3, 32, 32)
    tokens = torch.randint(1, 49000, (2, 20))
    tokens[:, 0], tokens[:, -1] = 49406, 49407
    output = theirs(input_ids=tokens, pixel_values=images[0])
    for features, expected in (
        (ours.image(images)[0], output.image_embeds),
        (ours.text.encode_tokens(tokens), output.text_embeds),
    ):
        assert_same(unit(features), expected)
    assert ours.log_scale.item() == pytest.approx(theirs.logit_scale.item())


def test_a_folder_and_its_file_and_openais_file_are_the_same_backbone(folder, tmp_path):
    _, place = folder(pixels=None)
    by_folder, by_file = load_backbone(f"hf:{place}"), load_backbone(f"{place}/model.safetensors")
    torch.save(
        by_folder.text.state_dict()
        | {"logit_scale": by_folder.log_scale}
        | {f"visual.{key}": value for key, value in by_folder.image.state_dict().items()},
        f"{tmp_path}/openai.pt",
    )
    by_openais = load_backbone(f"{tmp_path}/openai.pt")
    for other in (by_file, by_openais):
        assert tensor_hash(other.state_dict().values()) == tensor_hash(
            by_folder.state_dict().values()
        )
        assert tensor_hash(other.signature()) == tensor_hash(by_folder.signature())
    assert by_folder.normalization is None


@pytest.mark.parametrize("change, reason", GOLDEN["models"]["refused"])
def test_what_cannot_be_used_is_refused_with_the_reason(folder, change, reason):
    with refuses(reason):
        load_backbone(folder(changed(**change) if change else change)[1])


def test_missing_files_and_odd_pixels_are_refused(folder, tmp_path):
    for pixels in ({"image_mean": [0.5]}, {**PIXELS, "image_std": [1, 2]}, []):
        with refuses("preprocessor_config.json has no image_mean"):
            load_backbone(folder(pixels=pixels)[1])
    model, place = folder()
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), f"{tmp_path}/pytorch_model.bin")  # the older format
    assert load_backbone(place).image.image_size == 32
    (tmp_path / "pytorch_model.bin").unlink()
    with refuses("neither model.safetensors nor pytorch_model.bin"):
        load_backbone(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with refuses("has no config of a CLIP"):
        load_backbone(str(tmp_path))

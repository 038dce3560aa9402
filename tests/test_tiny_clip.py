"""The embedded tiny CLIP: the committed weights are a CLIP of OpenAI's form, as good as their model card says."""

import json
import re

import clip
import pytest
import torch

from datasets.drawn.emoji_font import draw_emoji
from datasets.drawn.openmoji import SPLIT
from tests.conftest import REPOSITORY
from trainers.prompting.backbone import WEIGHTS


def test_the_committed_weights_are_small_and_of_openais_form():
    """That the unmodified ``clip`` computes the same features from them is tested in ``prompting/test_backbone.py``."""
    state = torch.load(WEIGHTS["tiny"], weights_only=True)
    assert WEIGHTS["tiny"].stat().st_size <= 16e6
    assert all(value.dtype == torch.half for value in state.values() if value.is_floating_point())


def test_the_committed_weights_have_the_model_cards_accuracy():
    """Zero-shot over all classes on the validation pictures, computed with the unmodified ``clip`` alone."""
    card = (REPOSITORY / "docs/tiny-clip.md").read_text(encoding="utf-8")
    stated = re.search(r"the committed weights \|[^|]*\|[^|]*\| ([0-9.]+) /", card)
    with open(SPLIT, encoding="utf-8") as file:
        split = json.load(file)["val"]
    names = sorted({name for *_, name in split})
    stock, preprocess = clip.load(str(WEIGHTS["tiny"]), device="cpu")
    assert preprocess.transforms[0].size == stock.visual.input_resolution == 64
    with torch.no_grad():
        images = torch.stack([preprocess(draw_emoji(code)) for code, _, _ in split])
        logits, _ = stock(images, clip.tokenize([f"a photo of a {name}." for name in names]))
    right = logits.argmax(1) == torch.tensor([label for _, label, _ in split])
    # two pictures of 203
    assert 100 * right.float().mean().item() == pytest.approx(float(stated.group(1)), abs=1.0)

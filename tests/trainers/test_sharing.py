"""Any number of methods share one frozen CLIP, and one trained method answers any list of classes."""

import copy

import pytest
import torch

from tests.conftest import make_method, scrambled, slow_but_for
from tests.methods import shape_setting_of
from tests.trainers.test_every_trainer import METHOD_OF, TRAINERS
from trainers.classifier.prompted import PromptedClassifier
from trainers.prompting.text import TextEncoder
from trainers.settings import run_config

NAMES = ["cat", "bus", "tree"]


def facts(backbone):
    """What could change of a CLIP: values, types, gradients, modes."""
    values = {name: value.clone() for name, value in backbone.state_dict().items()}
    wanted = [(p.dtype, p.requires_grad, p.grad is None) for p in backbone.parameters()]
    return values, wanted, [module.training for module in backbone.modules()]


@slow_but_for(("CDC", "CoOp"), TRAINERS)
def test_a_clip_is_not_changed_by_what_is_built_on_it(name, vit, fp16_anywhere):
    values, *others = facts(vit)
    method = make_method(name, vit, NAMES, PREC="fp16")
    method.train()
    if METHOD_OF[name].learns and shape_setting_of(name) is not None:
        views, _ = method.views(method.settings)
        scores = method(torch.randn(views, 4, 3, 32, 32))
        method.loss(scores, torch.tensor([0, 1, 2, 0]))[0].backward()
    method.for_classes(["dog", "car"]).eval().requires_grad_(False)
    after, *rest = facts(vit)
    assert rest == others
    torch.testing.assert_close(after, values, rtol=0, atol=0)


def test_a_teacher_is_fp32_whatever_was_built_on_the_clip_before(vit, fp16_anywhere):
    make_method("CoOp", vit, NAMES, PREC="fp16")
    method = make_method("PromptSRC", vit, NAMES, PREC="fp16")
    assert method.towers.teacher.text.text_projection.dtype == torch.float32
    assert method.backbone.text.text_projection.dtype == torch.float16
    exact = make_method("PromptSRC", vit, NAMES)
    torch.testing.assert_close(method.hand_crafted, exact.hand_crafted, rtol=0, atol=0)
    embeddings = [each.backbone.text.token_embedding.weight for each in (method, exact)]
    assert embeddings[0].data_ptr() == embeddings[1].data_ptr(), "what stays fp32 is shared"


def test_a_methods_device_is_that_of_its_clip(vit):
    method = make_method("CoOp", copy.deepcopy(vit), NAMES)
    assert method.device == torch.device("cpu")
    assert method.to("meta").device == torch.device("meta")


@pytest.mark.parametrize("name", ["CDC", "MaPLe", "PromptSRC"])
def test_other_names_cost_their_encoding_only(name, vit, monkeypatch):
    """Nothing is loaded, the prompts' texts are encoded once, and the answers are those of a method
    that was made for the names."""
    method = make_method(name, vit, NAMES).eval()
    scrambled(method.learner)
    classifier = PromptedClassifier(method, run_config(), {"trainer": name})
    state = torch.random.get_rng_state()
    encoded = []
    encode = TextEncoder.forward

    def counted(self, prefix, suffix, *further, **more):
        encoded.append(len(prefix) * suffix.shape[1])
        return encode(self, prefix, suffix, *further, **more)

    monkeypatch.setattr(TextEncoder, "forward", counted)
    other = classifier.with_classes(["dog", "car"])
    texts, _ = other.encoded
    assert encoded == [len(texts) * 2]
    assert other.method.backbone is vit and not other.method.training
    assert torch.equal(state, torch.random.get_rng_state())
    with torch.no_grad():
        made = make_method(name, vit, ["dog", "car"]).eval()
        made.load(method.learner.state_dict(), NAMES)
        torch.testing.assert_close(texts, made.encode()[0], rtol=0, atol=0)

"""Any number of methods share one frozen CLIP."""

import torch

from tests.conftest import METHOD_OF, TRAINERS, make_method, slow_but_for
from tests.methods import shape_setting_of

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

"""Optimisers against textbook loops; schedules: tests/trainers/test_schedule.py of the repository."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn as nn
import yaml
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.optim.radam import AdamW, PlainRAdam, RAdam

CASES = yaml.safe_load(Path(__file__).with_name("optimisers.yaml").read_text("utf-8"))


def optim_cfg(**options):
    cfg = get_cfg_default().OPTIM
    cfg.update({"NAME": "sgd", "LR_SCHEDULER": "cosine", **options})
    return cfg


@pytest.mark.parametrize("options, message", CASES["mistakes"])
def test_mistakes_are_named(options, message):
    cfg = optim_cfg(**options)
    with pytest.raises(ValueError, match=message):
        build_lr_scheduler(build_optimizer(nn.Linear(2, 1), cfg), cfg)


@pytest.mark.parametrize("name, kind, settings", CASES["optimisers"])
def test_each_name_is_its_class_with_the_configs_settings(name, kind, settings):
    values = {"LR": 0.01, "WEIGHT_DECAY": 0.02, "MOMENTUM": 0.8, "SGD_NESTEROV": True}
    values |= {"RMSPROP_ALPHA": 0.7, "ADAM_BETA1": 0.6, "ADAM_BETA2": 0.95}
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    for given in (model, model.parameters()):
        optimizer = build_optimizer(given, optim_cfg(NAME=name, **values))
        (group,) = optimizer.param_groups
        assert type(optimizer).__name__ == kind
        assert group["params"] == list(model.parameters())  # frozen ones too
        assert group.get("betas", (0.6, 0.95)) == (0.6, 0.95)
        assert {"lr": 0.01, "weight_decay": 0.02, **settings}.items() <= group.items()


def radam_direction(m, v, t, b1, b2, eps):
    """Liu et al., 2020, algorithm 2."""
    longest = 2 / (1 - b2) - 1
    rho = longest - 2 * t * b2**t / (1 - b2**t)
    if rho < 5:
        return m / (1 - b1**t)
    r = math.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
    return r * m / (1 - b1**t) * math.sqrt(1 - b2**t) / (v.sqrt() + eps)


def adamw_direction(m, v, t, b1, b2, eps):
    """Dassl's, by the eps of which it differs from torch's: see ``dassl.optim.radam``."""
    corrected = eps * math.sqrt(1 - b2**t)
    return m / (1 - b1**t) * math.sqrt(1 - b2**t) / (v.sqrt() + corrected)


@pytest.mark.parametrize(
    "optimiser, direction",
    [(RAdam, radam_direction), (PlainRAdam, radam_direction), (AdamW, adamw_direction)],
)
def test_dassls_own_optimisers_are_their_rules_with_decoupled_decay(optimiser, direction):
    lr, decay, b1, b2, eps = 0.05, 0.1, 0.9, 0.99, 1e-3
    p = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = optimiser([p], lr, (b1, b2), eps, weight_decay=decay)
    w = p.detach().clone()
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t in range(1, 30):
        p.grad = torch.tensor([math.sin(t), math.cos(3 * t)], dtype=torch.float64)
        optimizer.step()
        m, v = b1 * m + (1 - b1) * p.grad, b2 * v + (1 - b2) * p.grad**2
        w = w - lr * decay * w - lr * direction(m, v, t, b1, b2, eps)
        assert torch.allclose(p.detach(), w, rtol=1e-10, atol=1e-12), t

"""Optimisers and schedules against closed forms and textbook loops."""

import math

import pytest
import torch
import torch.nn as nn
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.optim.radam import AdamW, PlainRAdam, RAdam

L, E, W = 0.002, 10, 3  # rate, epochs, epochs of warm-up


def optim_cfg(**options):
    cfg = get_cfg_default().OPTIM
    cfg.update({"NAME": "sgd", "LR": L, "LR_SCHEDULER": "cosine", "MAX_EPOCH": E, **options})
    return cfg


def fresh(**options):
    cfg = optim_cfg(**options)
    optimizer = build_optimizer(nn.Linear(2, 1), cfg)
    return optimizer, build_lr_scheduler(optimizer, cfg)


def go(optimizer, scheduler, epochs=E):
    """The rate used in each epoch when the schedule steps after every epoch."""
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        assert scheduler.get_last_lr() == [rates[-1]]
        optimizer.step()
        scheduler.step()
    return rates


def cosine(e):
    return L * (1 + math.cos(math.pi * e / E)) / 2


CONSTANT = {"WARMUP_EPOCH": W, "WARMUP_TYPE": "constant"}
LINEAR = {"WARMUP_EPOCH": W, "WARMUP_TYPE": "linear"}
ON = {"WARMUP_RECOUNT": False}
MILESTONES = {"LR_SCHEDULER": "multi_step", "STEPSIZE": (2, 5, 6)}
STEPS = {"LR_SCHEDULER": "single_step", "GAMMA": 0.5}

SCHEDULES = [  # options, the rate in epoch e
    ({}, cosine),
    (CONSTANT, lambda e: 1e-5 if e < W else cosine(e - W)),
    (LINEAR, lambda e: (L * e / W if e else 1e-5) if e < W else cosine(e - W)),
    ({**CONSTANT, **ON}, lambda e: 1e-5 if e < W else L * cosine(e) / cosine(W)),
    ({**LINEAR, **ON}, lambda e: (L * e / W or 1e-5) if e < W else L * cosine(e) / cosine(W)),
    ({**STEPS, "STEPSIZE": (9, 3)}, lambda e: L * 0.5 ** (e // 3)),
    ({**STEPS, "STEPSIZE": (-1,), "MAX_EPOCH": 7}, lambda e: L * 0.5 ** (e // 7)),
    (MILESTONES, lambda e: L * 0.1 ** sum(e >= m for m in (2, 5, 6))),
]


@pytest.mark.parametrize("options, rate", SCHEDULES)
def test_a_schedule_is_its_closed_form(options, rate):
    assert go(*fresh(**options)) == pytest.approx([rate(e) for e in range(E)], rel=1e-9)


@pytest.mark.parametrize("options, _", SCHEDULES)
@pytest.mark.parametrize("stop", [1, 5])
def test_a_schedule_restored_from_plain_values_goes_on_as_if_never_stopped(
    tmp_path, options, _, stop
):
    whole, stopped = go(*fresh(**options)), fresh(**options)
    go(*stopped, stop)
    torch.save([part.state_dict() for part in stopped], tmp_path / "state")
    restored = fresh(**options)
    for part, state in zip(restored, torch.load(tmp_path / "state", weights_only=True)):
        part.load_state_dict(state)
    assert go(*restored, E - stop) == whole[stop:]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"LR_SCHEDULER": "cosin"}, r"OPTIM.LR_SCHEDULER: .*do you mean \[cosine\]"),
        ({**CONSTANT, "WARMUP_TYPE": "const"}, "OPTIM.WARMUP_TYPE: .*constant"),
        ({**STEPS, "STEPSIZE": (2.0,)}, "an integer for single_step, got 2.0"),
        ({**MILESTONES, "STEPSIZE": 3}, "a list for multi_step, got 3"),
        ({"NAME": "adamax"}, r"OPTIM.NAME: .*do you mean \[adam\]"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fresh(**options)


ADAM = {"betas": (0.6, 0.95)}
OPTIMISERS = {  # name: class, settings beside rate and decay
    "adam": (torch.optim.Adam, {**ADAM, "amsgrad": False}),
    "amsgrad": (torch.optim.Adam, {**ADAM, "amsgrad": True}),
    "adamw": (torch.optim.AdamW, ADAM),
    "radam": (RAdam, {**ADAM, "decoupled_weight_decay": True}),
    "sgd": (torch.optim.SGD, {"momentum": 0.8, "nesterov": True, "dampening": 0}),
    "rmsprop": (torch.optim.RMSprop, {"momentum": 0.8, "alpha": 0.7}),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_each_name_is_its_class_with_the_configs_settings(name):
    values = {"LR": 0.01, "WEIGHT_DECAY": 0.02, "MOMENTUM": 0.8, "SGD_NESTEROV": True}
    values |= {"RMSPROP_ALPHA": 0.7, "ADAM_BETA1": 0.6, "ADAM_BETA2": 0.95}
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    for given in (model, model.parameters()):
        optimizer = build_optimizer(given, optim_cfg(NAME=name, **values))
        (group,) = optimizer.param_groups
        assert type(optimizer) is OPTIMISERS[name][0]
        assert group["params"] == list(model.parameters())  # frozen ones too
        assert {"lr": 0.01, "weight_decay": 0.02, **OPTIMISERS[name][1]}.items() <= group.items()


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
    optimizer = optimiser([p], lr, (b1, b2), eps, decay)
    w = p.detach().clone()
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t in range(1, 30):
        p.grad = torch.tensor([math.sin(t), math.cos(3 * t)], dtype=torch.float64)
        optimizer.step()
        m, v = b1 * m + (1 - b1) * p.grad, b2 * v + (1 - b2) * p.grad**2
        w = w - lr * decay * w - lr * direction(m, v, t, b1, b2, eps)
        assert torch.allclose(p.detach(), w, rtol=1e-10, atol=1e-12), t

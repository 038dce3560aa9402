"""Optimisers and schedules against closed forms and textbook loops."""

import math
import warnings

import pytest
import torch
import torch.nn as nn
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.optim.lr_scheduler import AVAI_SCHEDS, ConstantWarmupScheduler, LinearWarmupScheduler


def optim_cfg(**options):
    cfg = get_cfg_default().OPTIM
    for key, value in options.items():
        assert key in cfg
        cfg[key] = value
    return cfg


def rates(epochs, **options):
    """The rate used in each epoch when the schedule steps after every epoch."""
    cfg = optim_cfg(NAME="sgd", **options)
    optimizer = build_optimizer(nn.Linear(2, 1), cfg)
    scheduler = build_lr_scheduler(optimizer, cfg)
    out = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(epochs):
            out.append(optimizer.param_groups[0]["lr"])
            assert scheduler.get_last_lr() == [out[-1]]
            optimizer.step()
            scheduler.step()
    return out


def cosine(e, big_e, lr):
    return lr * (1 + math.cos(math.pi * e / big_e)) / 2


L, E = 0.002, 10


def test_cosine_is_half_a_wave():
    assert rates(E, LR=L, LR_SCHEDULER="cosine", MAX_EPOCH=E) == pytest.approx(
        [cosine(e, E, L) for e in range(E)], rel=1e-12
    )


@pytest.mark.parametrize("w", [1, 3])
def test_constant_warm_up_shifts_the_cosine(w):
    expected = [1e-5 if e < w else cosine(e - w, E, L) for e in range(E)]
    options = {"WARMUP_EPOCH": w, "WARMUP_TYPE": "constant", "WARMUP_CONS_LR": 1e-5}
    assert rates(E, LR=L, LR_SCHEDULER="cosine", MAX_EPOCH=E, **options) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("w", [1, 3])
def test_linear_warm_up_climbs_to_the_full_rate_and_shifts_the_cosine(w):
    expected = [(1e-5 if e == 0 else L * e / w) if e < w else cosine(e - w, E, L) for e in range(E)]
    options = {"WARMUP_EPOCH": w, "WARMUP_TYPE": "linear", "WARMUP_MIN_LR": 1e-5}
    assert rates(E, LR=L, LR_SCHEDULER="cosine", MAX_EPOCH=E, **options) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("kind", ["constant", "linear"])
def test_without_recount_the_cosine_goes_on_from_the_warm_ups_epochs(kind):
    w = 2
    got = rates(
        E,
        LR=L,
        LR_SCHEDULER="cosine",
        MAX_EPOCH=E,
        WARMUP_EPOCH=w,
        WARMUP_TYPE=kind,
        WARMUP_RECOUNT=False,
    )
    expected = [L * cosine(e, E, 1) / cosine(w, E, 1) for e in range(w, E)]
    assert got[w:] == pytest.approx(expected, rel=1e-12)
    assert got[:w] == pytest.approx([1e-5, 1e-5 if kind == "constant" else L / 2], rel=1e-12)


def test_coops_own_numbers():
    options = {"WARMUP_EPOCH": 1, "WARMUP_TYPE": "constant", "WARMUP_CONS_LR": 1e-5}
    got = rates(5, LR=0.002, LR_SCHEDULER="cosine", MAX_EPOCH=5, **options)
    assert got == pytest.approx([1e-5, 2e-3, 1.8090e-3, 1.3090e-3, 6.9098e-4], rel=1e-4)
    assert rates(3, LR=0.002, LR_SCHEDULER="cosine", MAX_EPOCH=50, **options) == pytest.approx(
        [1e-5, 0.002, 0.001998], rel=1e-3
    )


@pytest.mark.parametrize("stepsize, step", [((4,), 4), ((9, 3), 3), (2, 2), ((-1,), E)])
def test_single_step_multiplies_by_gamma_every_so_many_epochs(stepsize, step):
    got = rates(E + 2, LR=L, LR_SCHEDULER="single_step", STEPSIZE=stepsize, GAMMA=0.5, MAX_EPOCH=E)
    assert got == pytest.approx([L * 0.5 ** (e // step) for e in range(E + 2)], rel=1e-12)


def test_multi_step_multiplies_by_gamma_at_each_milestone():
    got = rates(E, LR=L, LR_SCHEDULER="multi_step", STEPSIZE=(2, 5, 6), GAMMA=0.1, MAX_EPOCH=E)
    assert got == pytest.approx(
        [L * 0.1 ** sum(e >= m for m in (2, 5, 6)) for e in range(E)], rel=1e-12
    )


def test_milestones_count_from_the_end_of_the_warm_up_unless_recount_is_off():
    options = {
        "LR": L,
        "LR_SCHEDULER": "multi_step",
        "STEPSIZE": (3,),
        "GAMMA": 0.1,
        "WARMUP_EPOCH": 2,
        "WARMUP_TYPE": "constant",
    }
    assert rates(7, **options)[2:] == pytest.approx([L, L, L, L * 0.1, L * 0.1])
    assert rates(7, WARMUP_RECOUNT=False, **options)[2:] == pytest.approx(
        [L, L * 0.1, L * 0.1, L * 0.1, L * 0.1]
    )


def test_warm_up_treats_each_parameter_group_by_its_own_rate():
    cfg = optim_cfg(
        NAME="sgd", LR=L, LR_SCHEDULER="cosine", MAX_EPOCH=E, WARMUP_EPOCH=2, WARMUP_TYPE="linear"
    )
    a, b = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizer = build_optimizer(
        None, cfg, param_groups=[{"params": a.parameters()}, {"params": b.parameters(), "lr": 1.0}]
    )
    scheduler = build_lr_scheduler(optimizer, cfg)
    seen = []
    for _ in range(4):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert seen[0] == [1e-5, 1e-5]
    assert seen[1] == pytest.approx([L / 2, 0.5])
    assert seen[2] == pytest.approx([L, 1.0])
    assert seen[3] == pytest.approx([cosine(1, E, L), cosine(1, E, 1.0)])


WARMUPS = [
    {},
    {"WARMUP_EPOCH": 3, "WARMUP_TYPE": "constant"},
    {"WARMUP_EPOCH": 3, "WARMUP_TYPE": "linear", "WARMUP_RECOUNT": False},
]


def is_plain(value):
    if isinstance(value, dict):
        return all(is_plain(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return all(is_plain(v) for v in value)
    return isinstance(value, (bool, int, float, str, type(None)))


@pytest.mark.parametrize("warmup", WARMUPS)
@pytest.mark.parametrize("name", AVAI_SCHEDS)
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_schedule_restored_from_plain_values_goes_on_as_if_never_stopped(
    tmp_path, name, warmup, stop
):
    cfg = optim_cfg(NAME="sgd", LR=L, LR_SCHEDULER=name, MAX_EPOCH=E, STEPSIZE=(2, 4), **warmup)

    def fresh():
        optimizer = build_optimizer(nn.Linear(2, 1), cfg)
        return optimizer, build_lr_scheduler(optimizer, cfg)

    def go(optimizer, scheduler, epochs):
        out = []
        for _ in range(epochs):
            out.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return out

    whole = go(*fresh(), E)
    optimizer, scheduler = fresh()
    go(optimizer, scheduler, stop)
    assert is_plain(scheduler.state_dict())
    torch.save((optimizer.state_dict(), scheduler.state_dict()), tmp_path / "state")

    optimizer, scheduler = fresh()
    states = torch.load(tmp_path / "state", weights_only=True)
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    assert go(optimizer, scheduler, E - stop) == whole[stop:]


def test_the_warm_up_classes_can_be_built_by_hand():
    optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
    successor = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    assert ConstantWarmupScheduler(optimizer, successor, 2, 0.03).get_last_lr() == [0.03]
    assert LinearWarmupScheduler(optimizer, successor, 2, 0.04).get_last_lr() == [0.04]
    assert isinstance(
        LinearWarmupScheduler(optimizer, successor, 2, 0.04), torch.optim.lr_scheduler.LRScheduler
    )


def test_schedule_mistakes_are_named():
    optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
    with pytest.raises(
        ValueError, match=r"OPTIM.LR_SCHEDULER: .* got \[cosin\] \(do you mean \[cosine\]\?\)"
    ):
        build_lr_scheduler(optimizer, optim_cfg(LR_SCHEDULER="cosin"))
    with pytest.raises(
        ValueError, match=r"OPTIM.WARMUP_TYPE: .* got \[const\] \(do you mean \[constant\]\?\)"
    ):
        build_lr_scheduler(optimizer, optim_cfg(WARMUP_EPOCH=1, WARMUP_TYPE="const"))
    with pytest.raises(TypeError, match="must be an integer for single_step, got float"):
        build_lr_scheduler(optimizer, optim_cfg(STEPSIZE=(2.0,)))
    with pytest.raises(TypeError, match="must be a list for multi_step, got int"):
        build_lr_scheduler(optimizer, optim_cfg(LR_SCHEDULER="multi_step", STEPSIZE=3))


CLASSES = {
    "adam": torch.optim.Adam,
    "amsgrad": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "radam": torch.optim.RAdam,
    "adamw": torch.optim.AdamW,
}


@pytest.mark.parametrize("name", CLASSES)
def test_each_name_is_torchs_class_with_the_configs_settings(name):
    cfg = optim_cfg(
        NAME=name,
        LR=0.01,
        WEIGHT_DECAY=0.02,
        MOMENTUM=0.8,
        SGD_NESTEROV=True,
        RMSPROP_ALPHA=0.7,
        ADAM_BETA1=0.6,
        ADAM_BETA2=0.95,
    )
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    optimizer = build_optimizer(model, cfg)
    group = optimizer.param_groups[0]
    assert type(optimizer) is CLASSES[name]
    assert group["params"] == list(model.parameters())  # frozen ones too
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.02)
    if "betas" in group:
        assert group["betas"] == (0.6, 0.95)
    if name in ("adam", "amsgrad"):
        assert group["amsgrad"] == (name == "amsgrad")
    if name == "sgd":
        assert (group["momentum"], group["nesterov"], group["dampening"]) == (0.8, True, 0)
    if name == "rmsprop":
        assert (group["momentum"], group["alpha"]) == (0.8, 0.7)


def test_radam_is_the_papers_rule_with_decoupled_decay():
    lr, decay, b1, b2 = 0.05, 0.1, 0.9, 0.99
    p = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = build_optimizer(
        [p], optim_cfg(NAME="radam", LR=lr, WEIGHT_DECAY=decay, ADAM_BETA1=b1, ADAM_BETA2=b2)
    )
    w, m, v = (
        p.detach().clone(),
        torch.zeros(2, dtype=torch.float64),
        torch.zeros(2, dtype=torch.float64),
    )
    for t in range(1, 30):
        grad = torch.tensor([math.sin(t), math.cos(3 * t)], dtype=torch.float64)
        p.grad = grad.clone()
        optimizer.step()
        m, v = b1 * m + (1 - b1) * grad, b2 * v + (1 - b2) * grad**2
        rho_inf = 2 / (1 - b2) - 1
        rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
        w = w - lr * decay * w
        if rho >= 5:
            r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            w = w - lr * r * (m / (1 - b1**t)) / ((v.sqrt() + 1e-8) / math.sqrt(1 - b2**t))
        else:
            w = w - lr * m / (1 - b1**t)
        assert torch.allclose(p.detach(), w, rtol=1e-10, atol=1e-12), t


def test_an_iterable_or_groups_may_stand_for_the_model():
    model = nn.Linear(2, 1)
    assert build_optimizer(model.parameters(), optim_cfg()).param_groups[0]["params"] == list(
        model.parameters()
    )
    other = nn.Linear(3, 1)
    optimizer = build_optimizer(
        model, optim_cfg(), param_groups=[{"params": other.parameters(), "lr": 1.0}]
    )
    assert optimizer.param_groups[0]["params"] == list(other.parameters())
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_an_unknown_optimiser_is_a_value_error_with_the_nearest_name():
    with pytest.raises(
        ValueError, match=r"OPTIM.NAME: .* got \[adamax\] \(do you mean \[adam\]\?\)"
    ):
        build_optimizer(nn.Linear(2, 1), optim_cfg(NAME="adamax"))

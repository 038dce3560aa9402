"""The benchmarks: the usual way gives the same numbers as ours, and the counted FLOPs are right."""

import pytest
import torch

from experiments.benchmarks import step
from protocols.hours import STEP_COLUMNS, Steps
from tests.conftest import scrambled
from tests.runs import call
from trainers import METHODS
from trainers.common.errors import UserError

CLASSES = 5
OPTIONS = {"CDC": {"N_TEMPLATES": 3, "PROMPT_DEPTH": 2}, "MaPLe": {"PROMPT_DEPTH": 2}}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def small(monkeypatch):
    # E, pixels, layers, D_v, patch …, D, heads, layers
    shape = (32, 32, 3, 64, 8, 77, 49408, 64, 1, 3)
    monkeypatch.setitem(step.SHAPES, "tiny", (shape, "tiny"))


@pytest.fixture(params=OPTIONS)
def both(request, small):
    """A method in our and in the usual way, no two templates alike; gradients are kept, not
    followed."""
    torch.manual_seed(1)
    ours, usual = step.build(request.param, "tiny", CLASSES, **OPTIONS[request.param])
    scrambled(ours.learner)
    ours.optim.step = lambda: None
    return ours, usual


@pytest.mark.parametrize("part", ["text encoder", "step", "test"])
def test_the_usual_way_gives_the_same_numbers(both, part):
    """Values and, in training, the gradients of all that is learned."""

    def run(method, is_usual):
        torch.manual_seed(2)  # the same images
        if part == "test":
            return step.test(method, 2, is_usual)()
        views = 3 if len(method.learner.ctx.shape) == 3 else 1
        work = step.training_step(method, views, 2)
        value = step.text_encoder(method)() if part == "text encoder" else work()
        gradients = (p.grad for p in method.learner.parameters() if p.grad is not None)
        return torch.cat([part.flatten() for part in (value, *gradients)])

    ours, usual = map(run, both, (False, True))
    assert len(usual) > 1
    assert (ours - usual).norm() < 1e-4 * usual.norm()


def test_flops_are_those_of_the_products_attention_of_cpus_included():
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert step.count_flops(lambda: a @ b) == 2 * 3 * 5 * 7
    query = torch.randn(2, 3, 11, 8)  # (B, heads, L, D)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert step.count_flops(lambda: attention(query, query, query)) == 2 * (2 * 2 * 3 * 11 * 11 * 8)


def test_launches_are_what_makes_or_changes_a_tensor():
    """Not views of one, nor memory that is taken."""
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert step.count_launches(lambda: (a @ b).t().view(-1, 3)[1:].add_(1)) == 2
    assert step.count_launches(lambda: torch.empty(3).expand(2, 3)) == 0


@pytest.mark.parametrize("name", [name for name in step.in_steps() if METHODS[name][0] == "."])
def test_every_trainer_has_a_usual_way_that_gives_the_same_numbers(name):
    """The loss of a step and the gradients of all that is learned, with CLIP's layers as many as its recipe
    wants; without what is drawn in a step."""
    torch.manual_seed(1)
    ours, usual = step.build(name, "narrow", CLASSES)
    if name != "ProLIP":  # whose projection keeps the norm of its start
        scrambled(ours.learner)
    ours.optim.step = lambda: None
    parts = []
    for method in (ours, usual):
        torch.manual_seed(2)
        loss = step.training_step(method.eval(), method.views(method.settings)[0], 2)()
        gradients = (p.grad for p in method.learner.parameters() if p.grad is not None)
        parts.append(torch.cat([loss.flatten(), *(each.flatten() for each in gradients)]))
    assert len(parts[0]) > 1
    assert (parts[0] - parts[1]).norm() < 1e-4 * parts[1].norm()


def test_a_step_costs_the_same_whether_or_not_its_products_are_computed():
    """And its FLOPs are torch's own count."""
    with step.layout_of_gpu("narrow"):
        _, ours = step.steps_of("MaPLe", "narrow", CLASSES)
        cost = step.count_cost(ours)
        assert cost.launches == step.count_launches(ours)
        assert cost.flops == step.count_flops(ours)


def test_bytes_are_those_that_an_operation_reads_and_writes():
    a = torch.randn(3, 5)
    b = torch.randn(5, 1).expand(5, 7)  # five values
    cost = step.count_cost(lambda: a @ b)
    assert cost == (1, 2 * 3 * 5 * 7, 2 * (15 + 5 + 21))


def test_a_step_takes_the_longest_of_what_it_needs():
    """Of computing, of moving and of starting operations."""
    assert step.Cost(10, 200, 30).seconds(peak=1, bandwidth=1) == 200
    assert step.Cost(10, 20, 30).seconds(peak=1, bandwidth=1) == 30
    assert step.Cost(10, 2, 3).seconds(peak=1e9, bandwidth=1e9) == 10 * step.LAUNCH


def test_the_tables_of_launches_have_both_ways(capsys, monkeypatch):
    monkeypatch.setattr(step, "in_steps", lambda: ["CDC"])
    monkeypatch.setattr(step, "COUNTED", 3)
    assert call(step.main, "--launches", "--classes", 3, "--shape", "narrow") == 0
    launches, costs = capsys.readouterr().out.strip().split("\n\n")
    header, _, row = launches.splitlines()
    assert header.split() == "| trainer | names | usual | ours | ratio |".split()
    _, trainer, names, usual, ours, ratio, _ = (part.strip() for part in row.split("|"))
    assert (trainer, names) == ("CDC", "3")
    counts = [int(count.replace(",", "")) for count in (usual, ours)]
    assert 0 < counts[1] < 0.4 * counts[0]
    assert float(ratio) == pytest.approx(counts[1] / counts[0], abs=0.01)
    header, _, row = costs.splitlines()
    assert [part.strip() for part in header.split("|")[1:4]] == ["trainer", "launches", "GFLOP"]
    assert row.split("|")[2].strip() == f"{usual} → {ours}"


@pytest.mark.parametrize(
    ("name", "batches"), [("MMA", {16, 128}), ("MMRL", {4, 32}), ("CoOp", {32})]
)
def test_a_step_is_measured_in_every_batch_of_the_fields_data_sets(name, batches):
    """So that a plan has the hours of all of them."""
    found = step.configs_by_batch(name, "narrow", "fp32", [])
    assert {*found} == batches
    assert all(cfg.DATALOADER.TRAIN_X.BATCH_SIZE == batch for batch, cfg in found.items())


def every(tmp_path, capsys):
    words = "--shape smallest --classes 2 3 --batch 2 --rounds 1 --every".split()
    code = call(step.main, *words, tmp_path / "gpu.csv")
    return code, capsys.readouterr()


def test_a_step_of_every_trainer_is_measured_in_every_precision(tmp_path, capsys, monkeypatch):
    """Of those that learn in steps; on a pretended GPU, which the file names."""
    monkeypatch.setattr(step, "METHODS", ["CoOp", "TipAdapterF", "GDA", "ZeroshotCLIP"])
    monkeypatch.setattr(step, "matmul_peak", lambda dtype: 1e12)
    code, printed = every(tmp_path, capsys)
    assert code == 0
    assert "smallest on a pretended GPU" in printed.out
    lines = (tmp_path / "gpu.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3 * 2
    assert lines[0] == ",".join(STEP_COLUMNS)
    steps = Steps.read(tmp_path / "gpu.csv")
    assert "pretended" in steps.device
    assert {key[1:3] for key in steps.times} == {
        (name, precision)
        for name in ("CoOp", "TipAdapterF")
        for precision in ("fp32", "amp", "fp16")
    }
    assert all(ms > 0 for times in steps.times.values() for ms in times.values())


def test_the_minutes_are_those_of_all_steps_that_are_measured(capsys, monkeypatch):
    """Of a warm-up and each round in each precision, and what a trainer does before its first epoch; where FLOPs
    decide they take the longer in fp32."""
    monkeypatch.setattr(step, "METHODS", ["CoOp"])
    speeds = {"one": step.Gpu(half=2e9, single=1e9, bandwidth=1e30)}
    monkeypatch.setattr(step, "GPUS", speeds)
    monkeypatch.setattr(step, "LAUNCH", 0.0)
    words = "--shape smallest --classes 3 --batch 2 --rounds 2000 --minutes".split()
    assert call(step.main, *words) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    minutes = {name: float(time) for _, name, time, _ in map(cells, lines)}
    cfg = step.config("CoOp", "smallest", "fp32", ["DATALOADER.TRAIN_X.BATCH_SIZE", "2"])
    backbone = step.build_backbone(step.random_clip("smallest").state_dict())
    flops = step.count_flops(step.started(step.method_of(cfg, 3, backbone), cfg))
    assert minutes["fp32"] == pytest.approx(2001 * flops / 1e9 / 60, abs=0.06, rel=0.01)
    for precision in ("amp", "fp16"):
        assert minutes[precision] == pytest.approx(minutes["fp32"] / 2, abs=0.1)
    assert minutes["all"] == pytest.approx(2 * minutes["fp32"], abs=0.2)


def cells(line):
    """Of a row of a table in Markdown."""
    return [cell.strip() for cell in line.split("|")]


def test_a_step_that_fails_is_told_and_the_others_are_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(step, "METHODS", ["CoOp", "VPT"])
    measured = dict(zip(STEP_COLUMNS[6:], (1.0, 2.0, 3.0, 4.0)))
    errors = {"VPT": torch.OutOfMemoryError("CUDA out of memory"), "CoOp": None}

    def measure(method, cfg, rounds):
        if error := errors[cfg.TRAINER.NAME]:
            raise error
        return measured

    monkeypatch.setattr(step, "measure_step", measure)
    code, printed = every(tmp_path, capsys)
    assert code == 1
    assert "error: VPT, fp32, 2 classes, batches of 2: CUDA out of memory" in printed.err
    assert "| CoOp " in printed.out
    assert {key[1] for key in Steps.read(tmp_path / "gpu.csv").times} == {"CoOp"}
    errors["CoOp"] = UserError("the loss is nan")
    code, printed = every(tmp_path, capsys)
    assert code == 2
    assert "no step could be measured" in printed.err

"""The benchmarks: the usual way gives the same numbers as ours, the counted FLOPs are right, and the
commands run."""

import functools
import re
import subprocess
from contextlib import nullcontext

import labelling
import own_images
import pytest
import step
import torch

from tests.conftest import scrambled

CLASSES, OPTIONS = 5, {"CDC": {"N_TEMPLATES": 3, "PROMPT_DEPTH": 2}, "MaPLe": {"PROMPT_DEPTH": 2}}
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
        way = step.pairwise if is_usual else lambda work: work
        if part == "test":
            return way(step.test(method, 2, is_usual))()
        views = 3 if len(method.learner.ctx.shape) == 3 else 1
        work = way(step.training_step(method, views, 2))
        value = step.text_encoder(method)() if part == "text encoder" else work()
        gradients = (p.grad for p in method.learner.parameters() if p.grad is not None)
        return torch.cat([part.flatten() for part in (value, *gradients)])

    ours, usual = map(run, both, (False, True))
    assert (ours - usual).norm() < 1e-4 * usual.norm() and len(usual) > 1


def test_flops_are_those_of_the_products_attention_of_cpus_included():
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert step.count_flops(lambda: a @ b) == 2 * 3 * 5 * 7
    query = torch.randn(2, 3, 11, 8)  # (B, heads, L, D)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert step.count_flops(lambda: attention(query, query, query)) == 2 * (2 * 2 * 3 * 11 * 11 * 8)


def test_the_command_prints_every_part(small, monkeypatch, capsys):
    monkeypatch.setattr(step, "matmul_peak", lambda: 1e9)
    small_build = functools.partial(step.build, PROMPT_DEPTH=2)
    monkeypatch.setattr(step, "build", small_build)
    step.main("--classes 5 --rounds 1".split())
    shown = capsys.readouterr().out
    for title in ("Text encoder", "Training step", "Fusion", "Test"):
        assert f"K = 5: {title}" in shown
    rows = re.findall(r"^((?:usual )?(?:MaPLe|CDC, 4).*?)  ", shown, re.MULTILINE)
    names = "usual MaPLe, one template|MaPLe|usual CDC, 4 templates|CDC, 4 templates"
    assert rows == names.split("|")


def test_what_ones_own_pictures_cost(monkeypatch, capsys, tmp_path):
    """One line for each number of pictures, and one for each number of processes beside the command, whose
    pictures are as many as it says."""
    monkeypatch.setattr(own_images, "CLASSES", 3)
    own_images.main("--parts fit --images 45".split())
    numbers = [float(word) for word in capsys.readouterr().out.split()]
    assert len(numbers) == 4 and numbers[0] > 0 and numbers[3] > 40
    asked = []

    def run(command, **_):
        asked.append(command[2:])
        return subprocess.CompletedProcess(command, 0, stdout="1.5 0.25 1.0 99\n")

    monkeypatch.setattr(own_images, "PICTURES", 40)
    monkeypatch.setattr(subprocess, "run", run)
    beside = []
    monkeypatch.setattr(own_images, "busy_process", lambda: nullcontext(beside.append(None)))
    own_images.main("--images 10 20".split())
    shown = capsys.readouterr().out
    assert "|         10 |" in shown and "|         20 |" in shown
    assert asked[:2] == [["--parts", "fit", "--images", images] for images in ("10", "20")]
    assert ["--images", "--backbone"] == asked[2][:3:2] and len(asked) == 4
    assert len(beside) == own_images.CORES
    own_images.draw_pictures(tmp_path)
    assert len([*tmp_path.glob("*/*.png")]) == 40


@pytest.mark.slow
def test_labelling_takes_what_it_takes(capsys):
    labelling.main("--pictures 300".split())
    shown = capsys.readouterr().out.splitlines()
    rows = [re.split(r" *\| *", line)[1:-1] for line in shown if line.startswith("| ")]
    assert [row[:2] for row in rows[1:]] == [["300", "as they are"], ["300", "10 ms each"]]
    assert float(rows[2][3]) >= 10


def test_what_models_of_open_clip_cost_is_what_its_own_table_says(capsys):
    """docs/model_profile.csv of its repository has 22.59 M and 20.63 M parameters and 2.29 GFLOP."""
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    import clips

    fastpath = torch.backends.mha.get_fastpath_enabled()
    assert clips.main(["ViT-S-32-alt"]) == 0
    torch.backends.mha.set_fastpath_enabled(fastpath)
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.startswith("| model | image parameters (M) | text parameters (M) | pixels | GFLOP")
    assert row.startswith("| `ViT-S-32-alt` | 23 | 21 | 224 | 2 | ")
    found = clips.measured("ViT-S-32-alt")
    assert found["image parameters (M)"] == pytest.approx(22.59, abs=0.01)
    assert found["text parameters (M)"] == pytest.approx(20.63, abs=0.01)
    # ours computes the last layer for the token that is read alone
    assert 0.9 * 2.29 < found["GFLOP per picture"] < 2.29

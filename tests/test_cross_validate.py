"""The tool that cross-validates settings: it trains as the trainer does, and a fold is never trained on."""

import sys
from types import SimpleNamespace

import numpy
import pytest
import torch
import yaml
from PIL import Image

from results.table import harmonic_mean
from tests.conftest import REPOSITORY
from trainers.common.errors import UserError

sys.path.insert(0, str(REPOSITORY / "tools"))  # as where it is started
import cross_validate as tool  # noqa: E402
import frontiers  # noqa: E402

OPTIONS = {"CDC": ("TRAINER.CDC.PROMPT_MODALITY", "text"), "CoOp": (), "MaPLe": (), "CoPrompt": ()}
SMALL = ("TEST.NO_TEST", "True")


def trainer_of(run, name, folder):
    return run(name, *OPTIONS.get(name, ()), *SMALL, name=folder, flags=("--no-train",))[0]


@pytest.mark.parametrize("name", OPTIONS)
def test_training_on_a_stock_is_a_plain_loop_over_drawn_views(run, name):
    ours, plain = (trainer_of(run, name, folder) for folder in ("ours", "plain"))
    items, model = tool.images_of(ours), plain.model
    labels = torch.tensor([item.label for item in items])
    size = model.backbone.image.image_size
    views = len(plain.views.transforms)
    stock = torch.randn(3, views, len(items), 3, size, size)  # (R, V, N, …)
    frozen = torch.stack([model.unprompted_images(images) for images in stock])  # (R, V, N, E)
    pictures = SimpleNamespace(stock=stock, frozen=frozen, labels=labels)
    chosen, batch = torch.arange(1, len(items)), ours.cfg.DATALOADER.TRAIN_X.BATCH_SIZE

    torch.manual_seed(3)
    tool.train_on(ours, pictures, chosen)

    torch.manual_seed(3)
    plain.dm.dataset.train_x[:] = [items[index] for index in chosen]
    if name == "CDC":
        model.start(plain.training_images, None)
    plain.set_model_mode("train")
    for _ in range(plain.max_epoch):
        order = chosen[torch.randperm(len(chosen))]
        for images in order.split(batch):
            if len(images) == batch:
                drawn = stock[torch.randint(3, (batch,)), :, images].transpose(0, 1)  # (V, B, …)
                loss, _ = model.loss(model(drawn), labels[images])
                plain.optim.zero_grad()
                loss.backward()
                plain.optim.step()
        plain.sched.step()
    if name == "CDC":
        model.complete(plain.training_images, None)
    start = trainer_of(run, name, "start").model.learner.ctx
    assert not torch.equal(ours.model.learner.ctx, start)
    for found, expected in zip(
        ours.model.learner.state_dict().values(), model.learner.state_dict().values()
    ):
        torch.testing.assert_close(found, expected)


def test_of_some_of_a_batchs_images_the_loader_has_the_features():
    """CDC compares every fourth image of all views, CDC over PromptSRC each template with its own
    view, CoPrompt with the second."""
    loader = tool.StockLoader(
        torch.randn(3, 4, 8, 5), torch.randn(3, 4, 8, 6), torch.zeros(8), torch.arange(8), 4
    )
    for batch in loader:
        for every in (1, 2, 4):
            asked, features = batch["img"][:, ::every], loader.features[:, ::every]
            assert torch.equal(loader.unprompted_images(asked), features)
            for view in range(4):
                found = loader.unprompted_images(asked[view : view + 1])
                assert torch.equal(found, features[view : view + 1])


def test_a_method_that_is_fitted_to_all_training_images_is_refused(run, tmp_path, monkeypatch):
    fitted = trainer_of(run, "TipAdapter", "fitted")
    monkeypatch.setattr(tool, "build_trainer", lambda cfg: fitted)
    with pytest.raises(UserError, match="TipAdapter is fitted to all training images"):
        tool.new_trainer({"trainer": "TipAdapter"}, "people", 1, 1, str(tmp_path), str(tmp_path))


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_judged_was_never_trained_on_and_holds_a_fifth_of_each_class(seed):
    labels = torch.tensor([0] * 5 + [1] * 30 + [2] * 12)
    chosen, held_out = tool.split(labels, seed)
    assert sorted([*chosen.tolist(), *held_out.tolist()]) == list(range(len(labels)))
    assert [(labels[chosen] == label).sum().item() for label in range(3)] == [3, 16, 10]


def test_a_frontier_is_compared_at_the_others_points():
    lower = numpy.array(
        [[70.0, 50.0], [60.0, 60.0], [55.0, 58.0]]
    )  # the last is exceeded by the second in both
    assert frontiers.gap(lower + [0, 2], lower) == frontiers.gap(lower + [3, 2], lower) == 2, (
        "its points are reached, and no further is asked"
    )
    assert frontiers.gap(lower + [-3, 2], lower + [-5, 0]) == 2
    assert numpy.isnan(frontiers.gap(lower - [3, 0], lower)), "70 is out of reach"
    assert frontiers.gap(lower[:1] + [1, 12], lower) == (12 + 2) / 2, (
        "one point further on in both serves for all"
    )


def test_settings_are_judged_once_and_the_frontiers_drawn(tmp_path, monkeypatch, capsys):
    """Two methods at two strengths on one task; what the file holds is not trained again."""
    experiment, results, figure = (
        tmp_path / "some.yaml",
        tmp_path / "found.jsonl",
        tmp_path / "frontiers.png",
    )
    names = {"a1": "A", "a2": "A", "b1": "B", "b2": "B"}
    experiment.write_text(
        yaml.safe_dump(
            [
                {"name": name, "description": name, "frontiers": [group]}
                for name, group in names.items()
            ]
        )
    )
    judged, figures = [], {"a1": (60, 60), "a2": (70, 50), "b1": (61, 61), "b2": (71, 51)}
    monkeypatch.setattr(tool, "Pictures", lambda *_: None)
    monkeypatch.setattr(tool, "new_trainer", lambda *_: None)

    def judge(setting, task, seed, pictures, root):
        judged.append(setting["name"])
        base, new = figures[setting["name"]]
        return {
            "setting": setting["name"],
            "task": task,
            "seed": seed,
            **dict.fromkeys(frontiers.FIGURES, 1.0),
            "base": base,
            "new": new,
            "H": harmonic_mean((base, new)),
        }

    monkeypatch.setattr(tool, "judge", judge)
    arguments = [
        str(experiment),
        "--results",
        str(results),
        "--tasks",
        "people",
        "--seeds",
        "1",
        "2",
    ]
    assert tool.main([*arguments, "--figure", str(figure)]) == 0
    printed = capsys.readouterr().out
    assert sorted(judged) == sorted([*names] * 4) and figure.stat().st_size > 1000
    above, gains = (
        " ".join(next(line for line in printed.splitlines() if line.startswith(name)).split())
        for name in ("| B ", "| b1 ")
    )
    assert "+1.00 | +1.00 … +1.00" in above and "+1.00 | +1.00 … +1.00" in gains
    assert tool.main(arguments) == 0 and len(judged) == 16


def row(setting, task, seed=1, **figures):
    return {"setting": setting, "task": task, "seed": seed, **figures}


def test_a_task_counts_once_however_many_folds_and_directions_it_has():
    rows = [
        *(row("a", "icons", seed, H=50.0) for seed in (1, 2, 3)),
        row("a", "icons_swapped", H=70.0),
        row("a", "words", H=10.0, styles_H=5.0),
    ]
    tasks = frontiers.by_task(frontiers.by_setting(rows)["a"])
    assert tasks["H"].tolist() == [55, 10]
    numpy.testing.assert_equal(tasks["styles_H"].tolist(), [numpy.nan, 5])
    more = [*rows, *({**old, "setting": "b", "H": old["H"] + 2} for old in rows)]
    table = frontiers.table([{"name": name, "description": name} for name in "ab"], more)
    found = [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]]
    head = [cell.strip() for cell in table.splitlines()[0].split("|")[1:-1]]
    found = dict(zip(head, found))
    assert found["H"] == "34.50" and found["styles_H"] == "5.00" and found["train"] == ""
    assert found["tasks"] == "2" and found["runs"] == "5" and found["H − first"] == "+2.00"


def test_unknown_classes_are_told_by_vacuity_or_else_by_the_highest_probability():
    known, others = torch.tensor([[0.9, 0.1], [0.7, 0.3]]), torch.tensor([[0.6, 0.4], [0.2, 0.8]])
    assert tool.unknown(tool.Prediction(known), tool.Prediction(others)) == 75
    vacuity = torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.4])
    with_vacuity = (tool.Prediction(of, vacuity=by) for of, by in zip((known, others), vacuity))
    assert tool.unknown(*with_vacuity) == 100


def test_a_task_of_pictures_in_folders_is_judged_both_ways_and_a_missing_one_skipped(
    tmp_path, monkeypatch, capsys
):
    """With the tiny CLIP as it is: what is trained on in one direction is asked for as new in the other."""
    for shade, label in enumerate(("arrow", "bird", "car", "fish")):
        place = tool.suite.folder_of(tmp_path, "icons") / label
        place.mkdir(parents=True)
        for number in range(10):
            image = Image.new("RGBA", (20, 30), (60 * shade, 20 * number, 99, 200))
            image.save(place / f"{number}.png")
    fitted_to: list[int] = []
    monkeypatch.setattr(
        tool, "fit_temperature", lambda _, labels: fitted_to.append(len(labels)) or 1.0
    )
    experiment, results = tmp_path / "some.yaml", tmp_path / "found.jsonl"
    experiment.write_text("[{name: plain, description: as it is, trainer: ZeroshotCLIP}]")
    arguments = ["--root", str(tmp_path), "--tasks", "icons", "words", "--seeds", "1"]
    assert tool.main([str(experiment), "--results", str(results), *arguments]) == 0
    skipped = [line for line in capsys.readouterr().err.splitlines() if "tools/suite.py" in line]
    assert len(skipped) == 1 and skipped[0].endswith("words")
    found = tool.read_rows(results)
    assert [of["task"] for of in found] == ["icons", "icons_swapped"]
    for of in found:
        assert {*frontiers.FIGURES} - {*of} == {"styles_H"}
        assert of["H"] == pytest.approx(harmonic_mean((of["base"], of["new"])), abs=1e-3)
    trained = 2 * 5  # of 7 images of a class that are not for testing two are held out
    everything = (4 * found[0]["base"] + trained * found[0]["train"]) / 14
    assert everything == pytest.approx(found[1]["new"], abs=1e-3)
    assert fitted_to == [2, 2], "half of the held-out images"
    assert all(of["nll_fit_new"] == pytest.approx(of["nll_new"], abs=1e-3) for of in found)

"""The tool that cross-validates settings: it trains as the trainer does, and a fold is never
trained on."""

import re
from types import SimpleNamespace

import pytest
import torch
from pandas import MultiIndex, Series

from experiments import comparison, folds
from experiments import cross_validate as tool
from protocols.arguments import build_config, parse_arguments
from results.comparison import Difference
from results.table import harmonic_mean
from tests.runs import REPOSITORY, make_pictures
from trainers.common.config_files import CONFIGS
from trainers.common.errors import UserError
from trainers.common.readers import read_yaml
from trainers.common.same_run import config_of_run, differing

OPTIONS = {"CDC": ("TRAINER.CDC.PROMPT_MODALITY", "text"), "CoOp": (), "CoPrompt": ()}


def trainer_of(run, name, folder):
    options = (*OPTIONS.get(name, ()), "TEST.NO_TEST", "True")
    return run(name, *options, name=folder, flags=("--no-train",))[0]


def test_a_setting_means_the_same_in_both_experiments_whose_results_are_in_one_file():
    meant = []
    for experiment in ("cross_validation", "cross_validation_values"):
        settings = read_yaml(REPOSITORY / f"experiments/{experiment}.yaml")
        meant.append({each["name"]: each for each in settings})
    first, second = meant
    shared = first.keys() & second.keys()
    assert shared >= {"cdc", "averaged"}
    for name in shared:
        first[name].pop("description")
        second[name].pop("description")
        assert first[name] == second[name]


@pytest.mark.parametrize("name", OPTIONS)
def test_training_on_a_stock_is_a_plain_loop_over_drawn_views(run, name):
    ours, plain = (trainer_of(run, name, folder) for folder in ("ours", "plain"))
    items = folds.images_of(ours)
    model = plain.model
    labels = torch.tensor([item.label for item in items])
    size = model.backbone.image.image_size
    views = len(plain.run.loaders.views)
    stock = torch.randn(3, views, len(items), 3, size, size)  # (R, V, N, …)
    frozen = torch.stack([model.towers.encode_images(images) for images in stock])  # (R, V, N, E)
    pictures = SimpleNamespace(stock=stock, frozen=frozen, trained=folds.Half(labels, {}))
    chosen = torch.arange(1, len(items))
    batch = ours.cfg.DATALOADER.TRAIN_X.BATCH_SIZE

    torch.manual_seed(3)
    folds.train_on(ours, pictures, chosen)

    torch.manual_seed(3)
    plain.dm.dataset.train_x[:] = [items[index] for index in chosen]
    if name == "CDC":
        with torch.random.fork_rng():  # as fit has it
            model.start(plain.run.training_images, None)
    plain.set_model_mode("train")
    for _ in range(plain.max_epoch):
        order = chosen[torch.randperm(len(chosen))]
        for images in order.tensor_split(-(-len(chosen) // batch)):
            drawn = stock[torch.randint(3, images.shape), :, images].transpose(0, 1)  # (V, B, …)
            loss, _ = model.loss(model(drawn), labels[images])
            plain.optim.zero_grad()
            loss.backward()
            plain.optim.step()
        plain.sched.step()
    if name == "CDC":
        model.complete(plain.run.training_images, None)
    start = trainer_of(run, name, "start").model.learner.ctx
    assert not torch.equal(ours.model.learner.ctx, start)
    found, expected = (of.learner.state_dict() for of in (ours.model, model))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_judged_was_never_trained_on_and_holds_a_fifth_of_each_class(seed):
    labels = torch.tensor([0] * 5 + [1] * 30 + [2] * 12)
    chosen, held_out = folds.split(labels, seed)
    assert sorted([*chosen.tolist(), *held_out.tolist()]) == list(range(len(labels)))
    assert [(labels[chosen] == label).sum().item() for label in range(3)] == [3, 16, 10]


def row(setting, task, seed=1, **figures):
    return {"setting": setting, "task": task, "seed": seed, **figures}


def test_a_task_counts_once_however_many_folds_and_directions_it_has():
    rows = [
        *(row("a", "icons", seed, H=50.0) for seed in (1, 2, 3)),
        row("a", "icons_swapped", H=70.0),
        row("a", "words", H=10.0, styles_H=5.0),
    ]
    rows += [{**old, "setting": "b", "H": old["H"] + 2} for old in rows]
    for place, value in ((0, 60.0), (5, 70.0), (6, 99.0)):  # a's second fold has no mistakes
        rows[place]["mistakes_base"] = value
    settings = [{"name": name, "description": name} for name in "ab"]

    def last_line(table):
        lines = table.splitlines()
        cells = zip(lines[0].split("|")[1:-1], lines[-1].split("|")[1:-1])
        return {head.strip(): last.strip() for head, last in cells}

    for made, expected in (
        (comparison.table(settings, rows), ["34.50", "5.00", "", "2", "5", "84.50"]),
        (
            comparison.difference_table(comparison.differences(settings, rows)),
            ["+2.00 (no interval)", "+0.00 (no interval)", "", "2", "5"] + ["+10.00 (no interval)"],
        ),
    ):
        found = last_line(made)
        cells = map(found.get, ("H", "styles_H", "train", "tasks", "runs", "mistakes_base"))
        assert [*cells] == expected
    assert found["minus a"] == "b"
    with pytest.raises(UserError, match="--first c has no result; there are: a, b"):
        comparison.differences(settings, rows, "c")


def test_five_tasks_have_an_interval_and_a_verdict_whichever_of_their_folds_are_done():
    """Seven folds of five tasks: another setting's missing folds are left out of both."""
    gains = {"icons": 1.0, "words": 2.0, "stamps": 3.0, "weather": 2.5, "people": 1.5}
    rows = [row("a", task, seed, H=50.0 + seed) for task in gains for seed in (1, 2, 3)]
    rows += [row("b", task, 1, H=51.0 + gain) for task, gain in gains.items()]
    rows += [row("b", "icons_swapped", 1, H=99.0), row("b", "icons", 2, H=53.0)]
    settings = [{"name": name, "description": name} for name in "ab"]
    compared = comparison.differences(settings, rows)
    (found,) = compared["H"]
    expected = Difference.between(
        *(
            Series(values, MultiIndex.from_product([gains, [1]], names=["data set", "seed"]))
            for values in ([*gains.values()], [0.0] * 5)
        )
    )
    assert [*compared[["tasks", "runs"]].loc["b"]] == [5, 6]
    assert found.interval == pytest.approx(expected.interval)
    told, powerless = comparison.verdicts(compared).splitlines()
    assert told == "H: " + found.verdict("b", "a")
    assert powerless.startswith("Wilcoxon's test can show nothing here: its smallest p over 5 data")
    assert str(found) in comparison.difference_table(compared)


def test_a_classifier_of_the_trained_classes_is_compared_on_new_classes_and_with_its_like():
    tasks = ("icons", "words", "stamps", "weather", "people")
    rows = [
        row(name, task, base=base, new=40.0, H=50.0)
        for name, base in (("a", 50.0), ("b", 70.0), ("c", 80.0))
        for task in tasks
    ]
    settings = [{"name": name, "description": name + mark} for name, mark in ("a ", "b†", "c†")]
    to_a = comparison.differences(settings, rows).loc["b"]
    assert to_a[["base", "H"]].isna().all() and to_a["new"].mean == 0
    assert comparison.differences(settings, rows, "b").loc["c", "base"].mean == 10


@pytest.mark.parametrize("file, first", [("parts", "full"), ("readings", "full_fp32")])
def test_a_row_changes_one_setting_or_says_how_many(file, first):
    """Beside the row that it is compared with; of GDA's rows that is GDA's."""
    rows = {
        row["name"]: row
        for row in read_yaml(REPOSITORY / f"experiments/cross_validation_{file}.yaml")
    }

    def facts_of(row):
        trainer = row.get("trainer", "CDC")
        recipe = tool.recipe_path(trainer, row.get("recipe", "tiny"))
        dataset = f"{CONFIGS}/datasets/image_folder.yaml"
        words = ["--trainer", trainer, "--config-file", recipe, "--dataset-config-file", dataset]
        words += [str(word) for pair in row.get("settings", {}).items() for word in pair]
        facts = config_of_run(build_config(parse_arguments(words)), ())
        return facts | {key: str(row.get(key)) for key in ("shares_view", "by_accuracy")}

    compared = [row for row in rows.values() if row.get("trainer", "CDC") in ("CDC", "GDA")]
    assert len(compared) >= 7
    for row in compared:
        reference = rows[first if "trainer" not in row else "gda"]
        now, then = facts_of(row), facts_of(reference)
        changed = differing(now, then, now.keys() | then.keys())
        print(row["name"], *changed, sep="\n    ")
        told = re.search(r"(two|three) changes|with their recipe", row["description"])
        if told is None:
            assert len(changed) <= 1, row["name"]
        elif told[1]:
            assert len(changed) == {"two": 2, "three": 3}[told[1]], row["name"]


def test_a_task_of_pictures_in_folders_is_judged_both_ways(tmp_path, monkeypatch):
    """With the tiny CLIP as it is: what is trained on in one direction is asked for as new in the
    other."""
    names = ("arrow", "bird", "car", "fish")
    make_pictures(tmp_path / "suite" / "icons", names=names)
    fitted_to = []
    fitted = lambda _, labels: fitted_to.append(len(labels)) or 1.0  # noqa: E731
    monkeypatch.setattr(tool, "fit_temperature", fitted)
    (tmp_path / "some.yaml").write_text("[{name: a, description: as it is, trainer: ZeroshotCLIP}]")
    words = "{0}/some.yaml --results {0}/found.jsonl --root {0} --figure {0}/figure.svg"
    arguments = [*words.format(tmp_path).split(), *"--tasks icons --seeds 1".split()]
    assert tool.main(arguments) == 0 and (tmp_path / "figure.svg").stat().st_size > 1000
    found = tool.read_rows(tmp_path / "found.jsonl")
    assert tool.main(arguments) == 0, "judged once"
    assert tool.read_rows(tmp_path / "found.jsonl") == found
    assert [of["task"] for of in found] == ["icons", "icons_swapped"]
    for of in found:
        assert {*comparison.NUMBERS} - {*of} == {"styles_H", "worst_base"}
        assert of["H"] == pytest.approx(harmonic_mean((of["base"], of["new"])), abs=1e-3)
    trained = 2 * 5  # of 7 images of a class that are not for testing two are held out
    everything = (4 * found[0]["base"] + trained * found[0]["train"]) / 14
    assert everything == pytest.approx(found[1]["new"], abs=1e-3)
    assert fitted_to == [2, 2], "half of the held-out images"
    assert all(of["nll_fit_new"] == pytest.approx(of["nll_new"], abs=1e-3) for of in found)


def test_a_settings_line_is_the_same_whatever_was_trained_before_it(tmp_path):
    make_pictures(tmp_path / "suite" / "icons", names=("arrow", "bird", "car", "fish"))
    text = (
        "{{name: {0}, description: {0}, trainer: CoOp, settings: "
        "{{OPTIM.MAX_EPOCH: 2, OPTIM.LR: 0.5, DATALOADER.TRAIN_X.BATCH_SIZE: 4}}}}"
    )

    def lines(*names):
        (tmp_path / "some.yaml").write_text(f"[{', '.join(map(text.format, names))}]")
        results = tmp_path / f"{len(names)}.jsonl"
        words = (
            f"{tmp_path}/some.yaml --results {results} --root {tmp_path} --tasks icons --seeds 1"
        )
        assert tool.main(words.split()) == 0
        return [row for row in tool.read_rows(results) if row["setting"] == "b"]

    assert lines("b") == lines("a", "b")

"""Methods from outside ``trainers`` are known to the commands, and to everything that tests any method."""

from pathlib import Path

import pytest
import yaml

import experiments.methods.__main__ as command
from experiments.methods import OURS, recipe_path
from tests.commands import check_training, commands, read
from tests.runs import REPOSITORY, call, record_of
from tests.test_documentation import tokens_of
from tests.trainers import test_names, test_settings
from trainers import METHODS
from trainers.common.config_files import CONFIGS, read_config
from trainers.engine.saved_run import find_method

FOLDER = REPOSITORY / "experiments/methods"
RECIPES = sorted(FOLDER.glob("configs/CDC*/*.yaml"))


@pytest.mark.parametrize("name", OURS)
def test_train_trains_it_once_the_package_is_imported(arguments, tmp_path, name):
    assert call(command.main, *arguments(name)) == 0
    record = record_of(tmp_path / "out")
    assert record["trainer"] == name
    assert METHODS[name] == find_method(name).__module__ == OURS[name]


@pytest.mark.parametrize("name", OURS)
def test_names_are_names(vit, one_thread, name):
    test_names.test_names_are_names(vit, one_thread, name, {})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_is_valid(path):
    assert recipe_path(path.parent.name, path.stem) == str(path)
    test_settings.test_every_config_is_valid_and_a_recipe_says_what_it_is(path)


def test_the_recipe_of_another_method_is_the_products():
    assert Path(recipe_path("CDC", "tiny")) == CONFIGS / "trainers/CDC/tiny.yaml"


@pytest.mark.parametrize("recipe", ["tiny", "vit_b16"])
def test_a_recipe_of_cdcgda_is_cdcs(recipe):
    """Whose prompts it trains."""
    ours = read_config(recipe_path("CDCGDA", recipe), "CDCGDA")
    cdcs = read_config(recipe_path("CDC", recipe), "CDC")
    ours["TRAINER"] = {"CDC": ours["TRAINER"]["CDCGDA"]}
    assert ours == cdcs


def test_rows_of_the_ablation_are_of_cdcgda_and_change_keys_that_it_has(vit):
    rows = yaml.safe_load((FOLDER / "configs/ablations/CDCGDA.yaml").read_text())
    cfg = test_settings.defaults()
    for row in rows:
        assert row["trainer"] == "CDCGDA"
        cfg.merge_from_list([word for pair in row.get("settings", {}).items() for word in pair])


def test_the_readmes_command_makes_a_config():
    fences = [token.content for token in tokens_of(FOLDER / "README.md") if token.type == "fence"]
    ((_, words),) = (each for text in fences for each in commands(text))
    assert words[:3] == ["python", "-m", "experiments.methods"]
    check_training(read(command.main, words[3:]))

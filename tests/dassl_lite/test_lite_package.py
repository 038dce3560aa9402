"""Names and paths that user code imports."""

import importlib
from pathlib import Path

import dassl
import pytest

NAMES = {
    "dassl.config": "get_cfg_default clean_cfg cfg_default",
    "dassl.engine": "TRAINER_REGISTRY build_trainer TrainerX TrainerBase SimpleTrainer",
    "dassl.engine.trainer": "TrainerX TrainerBase SimpleTrainer MetricMeter AverageMeter SummaryWriter "
    "DataManager build_optimizer build_lr_scheduler build_evaluator save_checkpoint resume_from_checkpoint tolist_if_not",
    "dassl.engine.build": "TRAINER_REGISTRY build_trainer",
    "dassl.data": "DataManager DatasetWrapper",
    "dassl.data.data_manager": "build_data_loader DataManager DatasetWrapper",
    "dassl.data.datasets": "DATASET_REGISTRY build_dataset Datum DatasetBase",
    "dassl.data.datasets.base_dataset": "Datum DatasetBase",
    "dassl.data.datasets.build": "DATASET_REGISTRY build_dataset",
    "dassl.data.samplers": "build_sampler",
    "dassl.data.transforms": "INTERPOLATION_MODES build_transform",
    "dassl.data.transforms.transforms": "INTERPOLATION_MODES build_transform AVAI_CHOICES",
    "dassl.evaluation": "EVALUATOR_REGISTRY build_evaluator EvaluatorBase Classification",
    "dassl.metrics": "compute_accuracy",
    "dassl.optim": "build_optimizer build_lr_scheduler",
    "dassl.optim.lr_scheduler": "AVAI_SCHEDS ConstantWarmupScheduler LinearWarmupScheduler",
    "dassl.utils": "Registry check_availability set_random_seed setup_logger Logger collect_env_info mkdir_if_missing "
    "check_isfile read_json write_json listdir_nohidden read_image tolist_if_not get_most_similar_str_to_a_from_b "
    "count_num_param AverageMeter MetricMeter "
    "save_checkpoint load_checkpoint resume_from_checkpoint load_pretrained_weights",
}


@pytest.mark.parametrize("module", NAMES)
def test_every_import_path_of_coop_style_code_exists(module):
    for name in NAMES[module].split():
        assert hasattr(importlib.import_module(module), name), name


def test_the_version_is_dassls_and_the_package_says_it_is_the_lite_one():
    assert dassl.__version__ == "0.6.3"
    assert dassl.__lite__ is True


def test_a_datum_lives_where_few_shot_pickles_look_for_it():
    from dassl.data.datasets import Datum

    assert (Datum.__module__, Datum.__qualname__) == ("dassl.data.datasets.base_dataset", "Datum")


def test_registries_carry_dassls_names():
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY
    from dassl.evaluation import EVALUATOR_REGISTRY

    names = {
        "TRAINER": TRAINER_REGISTRY,
        "DATASET": DATASET_REGISTRY,
        "EVALUATOR": EVALUATOR_REGISTRY,
    }
    for name, registry in names.items():
        with pytest.raises(KeyError, match=f'"nobody" does not exist in "{name}" registry'):
            registry.get("nobody")


def test_no_file_is_longer_than_300_lines():
    for path in Path(dassl.__file__).parent.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 300, path

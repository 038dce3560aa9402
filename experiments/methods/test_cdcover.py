"""CDC over another method: what its templates start from, and where it is that method itself."""

import pytest
import torch

from tests.conftest import make_method
from tests.trainers import test_settings, test_special_cases

ONE_TEMPLATE = {
    "N_TEMPLATES": 1,
    "LOSS": "cross_entropy",
    "FUSION": "mean_probability",
    "DECOUPLING_WEIGHT": 0.0,
    "CONSISTENCY_WEIGHT": 0.0,
}


def test_templates_start_from_phrases_of_the_contexts_length(vit):
    phrases = ["a photo of a", "a photo of one", "art of the", "a bad photo of the"]
    method = make_method("CDCPromptSRC", vit, ["cat", "dog"], PHRASES=phrases)
    contexts = [one.ctx for one in method.learner.learners]
    assert torch.equal(contexts[0][:3], contexts[1][:3])
    assert not torch.equal(contexts[0][3], contexts[1][3])


@pytest.mark.parametrize(
    "name, phrases, of", [("CDCPromptSRC", ["a photo of a"], "PromptSRC"), ("CDCTCP", [], "TCP")]
)
def test_one_template_with_the_methods_own_loss_is_the_method(run, just_trained, name, phrases, of):
    settings = {**ONE_TEMPLATE, "PHRASES": phrases}
    test_special_cases.test_it_trains_to_the_answers_of_the_method_that_it_is_a_case_of(
        run, just_trained, name, settings, of, {}
    )


def test_promptsrcs_weighted_mean_over_epochs_is_of_every_template(run, monkeypatch):
    test_special_cases.test_the_final_prompts_are_the_weighted_mean_over_epochs(
        run, monkeypatch, "CDCPromptSRC"
    )


def test_the_optimiser_has_tcps_settings(vit):
    test_settings.test_the_optimiser_has_all_parameters_in_groups_with_the_official_settings(
        vit, "CDCTCP", [{"eps": 0.001}]
    )


@pytest.mark.parametrize(
    "settings, line",
    [
        ({"N_TEMPLATES": 0}, "TRAINER.CDCTCP.N_TEMPLATES is 0, it must be at least 1"),
        (
            {"LOSS": "hinge"},
            "TRAINER.CDCTCP.LOSS is 'hinge', it takes one of evidential, trusted, cross_entropy",
        ),
    ],
)
def test_a_key_of_cdcs_takes_what_it_takes_there(vit, settings, line):
    test_settings.test_settings_that_can_not_work_are_refused_with_the_key_and_what_it_takes(
        vit, "CDCTCP", settings, line
    )

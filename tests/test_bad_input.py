"""Bad input is answered with one clear line on standard error and exit code 2, and nothing is left half-written."""

import json
import shutil
import subprocess
import sys

import pytest

from protocols.training import main
from tests.conftest import REPOSITORY, base_arguments, make_textures
from trainers import METHODS
from trainers.common.errors import UserError


@pytest.mark.parametrize(
    "more, message",
    [
        (
            ("TRAINER.CDC.N_TEMPLATE", "2"),
            "unknown config key TRAINER.CDC.N_TEMPLATE (did you mean TRAINER.CDC.N_TEMPLATES?)",
        ),
        (("OPTIM.LRR", "2"), "unknown config key OPTIM.LRR (did you mean OPTIM.LR?)"),
        (("OPTIM.LR", "fast"), "OPTIM.LR"),
        (("OPTIM.LR",), "must come in pairs, KEY VALUE: OPTIM.LR"),
        (("TRAINER.CDC.N_TEMPLATES", "0"), "TRAINER.CDC.N_TEMPLATES is 0, it must be at least 1"),
        (("TRAINER.CDC.N_CTX", "0"), "TRAINER.CDC.N_CTX is 0, it must be at least 1"),
        (("TRAINER.CDC.PROMPT_DEPTH", "4"), "has 3 layers to prompt"),
        (
            ("TRAINER.CDC.PROMPT_DEPTH", "5", "TRAINER.CDC.PROMPT_MODALITY", "text"),
            "has 4 layers to prompt",
        ),
        (
            ("TRAINER.CDC.PROMPT_MODALITY", "duall"),
            "TRAINER.CDC.PROMPT_MODALITY is 'duall', it takes one of dual, text (did you mean dual?)",
        ),
        (
            ("TRAINER.CDC.RELIABILITY", "known"),
            "TRAINER.CDC.RELIABILITY is 'known', it takes one of fitted, independent",
        ),
        (("TRAINER.CDC.FUSION", "demster"), "did you mean dempster?"),
        (("TRAINER.CDC.LOSS", "crossentropy"), "did you mean cross_entropy?"),
        (
            ("TRAINER.CDC.AUGMENTATION", "3"),
            "TRAINER.CDC.AUGMENTATION is 3, it takes one of 1, 2, None",
        ),
        (("TRAINER.CDC.HAND_CRAFTED", "a photo"), "it needs {} once, where the class name goes"),
        (("TRAINER.CDC.HAND_CRAFTED", "{} {x}"), "it needs {} once"),
        (
            ("TRAINER.CDC.CONSISTENCY_WEIGHT", "-1.0"),
            "TRAINER.CDC.CONSISTENCY_WEIGHT is -1.0, it must not be negative",
        ),
        (("OPTIM.MAX_EPOCH", "0"), "OPTIM.MAX_EPOCH is 0, it must be at least 1"),
        (("OPTIM.LR", "0.0"), "OPTIM.LR is 0.0, it must be above 0"),
        (("OPTIM.NAME", "sdg"), "do you mean [sgd]?"),
        (
            ("DATALOADER.TRAIN_X.BATCH_SIZE", "0"),
            "DATALOADER.TRAIN_X.BATCH_SIZE is 0, it must be at least 1",
        ),
        (("DATALOADER.TRAIN_X.SAMPLER", "Random"), "Unknown sampler type: Random"),
        (("INPUT.NO_TRANSFORM", "True"), "INPUT.NO_TRANSFORM leaves images that no CLIP can take"),
        (("INPUT.TRANSFORMS", "['random_flop']"), "random_flop"),
        (("TEST.EVALUATOR", "Classificatio"), "do you mean [Classification]?"),
        (("TRAINER.CDC.PREC", "fp8"), "PREC is 'fp8', it takes one of fp32, amp, fp16"),
        (("INPUT.SIZE", "(64, 64)"), "INPUT.SIZE is (64, 64), "),
        (("DATASET.SUBSAMPLE_CLASSES", "old"), "takes one of all, base, new"),
        (("DATALOADER.K_TRANSFORMS", "2"), "DATALOADER.K_TRANSFORMS is 2, these trainers take 1"),
        (("MODEL.INIT_WEIGHTS", "x.pt"), "MODEL.INIT_WEIGHTS is not supported"),
        (("OPTIM.LR_SCHEDULER", "cosin"), "did you mean cosine?"),
        (("TEST.FINAL_MODEL", "best"), "did you mean best_val?"),
        (("--eval-only",), "--eval-only of CDC needs --model-dir"),
        (("--eval-only", "--no-train"), "exclude each other"),
        (
            ("--eval-only", "--model-dir", "nowhere", "--load-epoch", "7"),
            "no checkpoint at nowhere/prompt_learner/model.pth.tar-7",
        ),
        (("--resume", "nowhere"), "--resume nowhere: no checkpoint there"),
    ],
)
def test_a_setting_that_cannot_work(refusal, more, message):
    flags = [word for word in more if word.startswith("--") or word in ("nowhere", "7")]
    options = [word for word in more if word not in flags]
    assert message in refusal(*flags, *options)
    if "--resume" not in more:
        assert not refusal.output.exists()


@pytest.mark.parametrize(
    "replace, message",
    [
        ({"--trainer": "CDCC"}, "unknown trainer 'CDCC' (did you mean CDC?); known: CDC, "),
        (
            {"--dataset-config-file": "configs/datasets/openmojis.yaml"},
            "openmojis.yaml is missing (did you mean openmoji.yaml?)",
        ),
        ({"--config-file": "configs/none.yaml"}, "config file configs/none.yaml is missing"),
        (
            {"--dataset-config-file": "configs/datasets/none.yaml"},
            "data set config file configs/datasets/none.yaml is missing",
        ),
        (
            {"--root": "nowhere"},
            "nowhere/dtd is missing: lay the data out as CoOp's DATASETS.md describes",
        ),
        ({"--backbone": "ViT-B16"}, "did you mean ViT-B/16?"),
    ],
)
def test_a_flag_that_cannot_work(refusal, replace, message):
    assert message in refusal(replace=replace)
    assert not refusal.output.exists()


def test_a_missing_data_folder_names_the_data_set_that_needs_none(refusal):
    assert "openmoji needs no download" in refusal(root="nowhere")


def test_an_unknown_data_set_and_an_unknown_key_in_a_file(refusal, tmp_path):
    (tmp_path / "pets.yaml").write_text("DATASET:\n  NAME: OxfordPet\n")
    assert "unknown data set 'OxfordPet' (did you mean OxfordPets?)" in refusal(
        replace={"--dataset-config-file": str(tmp_path / "pets.yaml")}
    )
    (tmp_path / "recipe.yaml").write_text("OPTIM:\n  LEARNING_RATE: 1\n")
    message = refusal(replace={"--config-file": str(tmp_path / "recipe.yaml")})
    assert "recipe.yaml" in message and "unknown config key OPTIM.LEARNING_RATE" in message
    (tmp_path / "list.yaml").write_text("- OPTIM\n")
    assert (
        "list.yaml" in (message := refusal(replace={"--config-file": str(tmp_path / "list.yaml")}))
        and "KEY: value" in message
    )
    (tmp_path / "broken.yaml").write_text("OPTIM: [")
    assert "broken.yaml" in refusal(replace={"--config-file": str(tmp_path / "broken.yaml")})


@pytest.mark.parametrize("workers, content", [("0", b""), ("0", b"no image"), ("1", None)])
def test_an_unreadable_image_is_named(refusal, tmp_path, workers, content):
    make_textures(tmp_path)
    for path in (tmp_path / "dtd" / "images" / "dotted").iterdir():
        path.write_bytes(path.read_bytes()[:-60] if content is None else content)
    message = refusal("DATALOADER.NUM_WORKERS", workers, trainer="CoOp", root=str(tmp_path))
    assert "dtd/images/dotted/" in message and "can't be read" in message and "\n" not in message


def test_a_missing_image_and_a_missing_split_are_named(refusal, tmp_path):
    make_textures(tmp_path)
    (tmp_path / "dtd" / "images" / "dotted" / "03.png").unlink()
    assert "dotted/03.png is missing" in refusal(root=str(tmp_path))
    path = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    path.write_text(path.read_text()[:200])
    assert "is malformed or cut" in refusal(root=str(tmp_path))
    path.write_text('{"train": [["a.png"]], "val": [], "test": []}')
    assert "is malformed or cut" in refusal(root=str(tmp_path))
    path.unlink()
    assert "split_zhou_DescribableTextures.json is missing" in refusal(root=str(tmp_path))


def test_best_val_without_validation_images(refusal, tmp_path):
    make_textures(tmp_path)
    path = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "val": []}))
    assert "TEST.FINAL_MODEL best_val needs validation images" in refusal(
        "TEST.FINAL_MODEL", "best_val", root=str(tmp_path)
    )


def test_best_val_never_chooses_on_test_images(refusal, tmp_path):
    make_textures(tmp_path)
    path = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    split = json.loads(path.read_text())
    path.write_text(json.dumps({**split, "val": split["test"]}))
    assert "would choose on test images" in refusal(
        "TEST.FINAL_MODEL", "best_val", root=str(tmp_path)
    )


@pytest.mark.parametrize(
    "changed, message",
    [
        (("OPTIM.LR", "0.5"), "OPTIM.LR 0.02 → 0.5"),
        (("DATASET.SUBSAMPLE_CLASSES", "new"), "DATASET.SUBSAMPLE_CLASSES 'all' → 'new'"),
        (("OPTIM.MAX_EPOCH", "9", "SEED", "5"), "OPTIM.MAX_EPOCH 3 → 9; SEED 1 → 5"),
    ],
)
def test_a_folder_that_holds_another_run_is_not_continued(
    trained, capsys, data_root, small_clip_file, changed, message
):
    folder = trained("CoOp")[1]
    before = sorted(str(path) for path in folder.rglob("*"))
    assert main([*base_arguments("CoOp", data_root, small_clip_file, folder), *changed]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error and "give another --output-dir" in error
    assert before == sorted(str(path) for path in folder.rglob("*")), (
        "the finished run, its record included, is as it was"
    )


def test_a_refused_test_leaves_the_record_of_the_finished_one(
    run, trained, data_root, small_clip_file
):
    _, record, folder = run("CoOp", flags=("--eval-only", "--model-dir", str(trained("CoOp")[1])))
    assert (
        main(
            [
                *base_arguments("CoOp", data_root, small_clip_file, folder),
                "--eval-only",
                "--model-dir",
                "nowhere",
            ]
        )
        == 2
    )
    assert json.loads((folder / "results.json").read_text()) == record


@pytest.mark.parametrize("number", ["0", "-1"])
def test_coop_without_context(refusal, number):
    assert f"TRAINER.COOP.N_CTX is {number}, it must be at least 1" in refusal(
        "TRAINER.COOP.N_CTX", number, trainer="CoOp"
    )


def test_an_output_folder_that_is_a_file(refusal, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal("OUTPUT_DIR", str(tmp_path / "file"))


def test_folders_made_on_the_way_to_a_refused_runs_folder_are_gone(refusal, tmp_path):
    refusal("OUTPUT_DIR", str(tmp_path / "x" / "y" / "z"), "OPTIM.LR", "0.0")
    assert not (tmp_path / "x").exists() and tmp_path.exists()


def test_a_cut_checkpoint_is_named(trained, stopped, capsys, data_root, small_clip_file, tmp_path):
    folder = stopped(trained("CoOp")[1], epoch=3)
    path = folder / "prompt_learner" / "model.pth.tar-3"
    path.write_bytes(path.read_bytes()[:100])
    assert (
        main(
            [
                *base_arguments("CoOp", data_root, small_clip_file, tmp_path / "new"),
                "--eval-only",
                "--model-dir",
                str(folder),
            ]
        )
        == 2
    )
    assert "model.pth.tar-3 can't be read" in capsys.readouterr().err


def test_the_command_itself_exits_with_2_and_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "train.py", "--trainer", "CDCC", "--output-dir", str(tmp_path / "out")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "Warning" not in line][-1] == (
        f"error: unknown trainer 'CDCC' (did you mean CDC?); known: {', '.join(sorted(METHODS))}"
    )
    assert "Traceback" not in done.stderr


def test_no_clip_weights(refusal, monkeypatch):
    def no_network(*request, **settings):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr(
        "os.path.expanduser", lambda path: path.replace("~", str(refusal.__name__) + "-home")
    )
    message = refusal(replace={"--backbone": "ViT-B/16"})
    shutil.rmtree(str(refusal.__name__) + "-home", ignore_errors=True)
    assert (
        "the weights of ViT-B/16 can't be downloaded" in message
        and "MODEL.BACKBONE.NAME tiny" in message
    )


def test_a_refused_run_leaves_the_folders_that_another_run_uses_by_now(
    tmp_path, small_clip_file, monkeypatch, capsys
):
    ours, others = tmp_path / "o" / "CoOp" / "seed1", tmp_path / "o" / "CoOp" / "seed2"

    def refuse(cfg):
        others.mkdir()
        raise UserError("no such data")

    monkeypatch.setattr("protocols.training.build_trainer", refuse)
    assert main(base_arguments("CoOp", str(tmp_path), small_clip_file, ours)) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: no such data"
    assert others.is_dir() and not ours.exists()

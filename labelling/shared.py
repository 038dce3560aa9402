"""Runs on the Hugging Face hub: checkpoint, record and a card; never pictures or their names."""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from trainers.common.console import markdown
from trainers.common.errors import UserError, raise_machines
from trainers.common.files import file_hash
from trainers.common.fingerprints import data_name
from trainers.common.hub import download, path_in_cache
from trainers.common.record_file import (
    RECORD_FILE,
    Record,
    finished_record,
    is_multi_label,
    nested,
    shown_name,
)
from trainers.common.trained_on import UNKNOWN_PICTURES
from trainers.engine.build import check_settings, find_method
from trainers.engine.checkpoint import load_state
from trainers.engine.saved_run import SavedRun, config_of, method_of

from .export import CARD, Exportable
from .task import task_of_run

HUB_RUN = "hf:"  # of the name of a run on the hub
WEIGHTS_FILE = "model.safetensors"  # the learner's state
# fields of a record that name pictures, or files that stay here
PRIVATE_FIELDS = ("notes", "skipped_images", "answers", "files")
PATH_SETTINGS = ("OUTPUT_DIR", "RESUME")  # of its config


def push(classifier: Exportable, repository: str, private: bool) -> str:
    """Write a classifier to a repository of the hub, which is made if it is not there; return the commit.

    Raises:
        UserError: the classifier's classes are not its run's, or the hub refuses.
    """
    from huggingface_hub import HfApi

    if classifier.classnames != classifier.record["classnames"]:
        raise UserError("this classifier has other classes than its run: share the run's own")
    with tempfile.TemporaryDirectory() as folder:
        write_shared(classifier, folder, repository)
        try:
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message="A run of cdc-prompt-learning",
            )
        except Exception as error:  # of the hub, of the network, or of a name that is none
            raise_machines(error, repository)
            raise UserError(
                f"the hub does not take {repository} ({short(error)}): check the name, and log in with hf auth login"
            ) from error
    return str(commit.oid)


def write_shared(classifier: Exportable, folder: str, repository: str) -> None:
    """Write the files of a repository into a new folder."""
    learner = classifier.method.learner
    state = {} if learner is None else classifier.method.trained.state
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(tensors, f"{folder}/{WEIGHTS_FILE}")
    record = public(classifier.record) | {
        "files": {WEIGHTS_FILE: file_hash(f"{folder}/{WEIGHTS_FILE}")}
    }
    text = json.dumps(record, indent=2)
    Path(folder, RECORD_FILE).write_text(text + "\n", encoding="utf-8")
    Path(folder, CARD).write_text(card(classifier, repository), encoding="utf-8")


def public(record: Record) -> dict[str, Any]:
    """Return a record without names of pictures and paths of this machine."""
    known: dict[str, Any] = json.loads(json.dumps(record))
    for field in PRIVATE_FIELDS:
        known.pop(field, None)
    known["skipped_images"] = {}
    config = known["config"]
    for key in PATH_SETTINGS:
        if key in config:
            config[key] = ""
    data = config["DATASET"]
    data["ROOT"] = data_name(data["NAME"], data["ROOT"])
    backbone = config["MODEL"]["BACKBONE"]
    backbone["NAME"] = public_name(backbone["NAME"])
    return known


def public_name(backbone: str) -> str:
    """Return the name of a backbone, of a file that alone: whoever loads the run says where the file is."""
    return os.path.basename(backbone) if os.path.exists(backbone) else backbone


def card(classifier: Exportable, repository: str) -> str:
    """Return the model card: how good the run is, on which pictures, and how it is loaded."""
    record = classifier.record
    said = task_of_run(record).said(record) or "It was not tested"
    names = ", ".join(map(markdown, classifier.classnames))
    backbone = public_name(classifier.cfg.MODEL.BACKBONE.NAME)
    return f"""\
---
library_name: cdc-prompt-learning
pipeline_tag: image-classification
tags: [clip, prompt-learning]
---

# {markdown(record["trainer"])} on {markdown(shown_name(record))}

{said}. That holds for pictures from the same source.

- Classes: {names}
- Backbone: {markdown(backbone)}, with the hash {record["backbone_hash"]}; its own licence holds
- Seed: {record["seed"]}; finished: {record["finished"]}

```python
from cdc_labelling import PromptedClassifier

classifier = PromptedClassifier.load({json.dumps(HUB_RUN + repository)})
print(classifier.predict("cat.jpg").labels)
```
"""


def load_shared(name: str, backbone: str, device: str) -> SavedRun:
    """Load a run from the hub.

    Args:
        name: ``hf:<owner>/<name>``, or ``hf:<owner>/<name>@<commit>`` for the same one for ever.
        backbone, device: as in ``load_run``.

    Raises:
        UserError: it can't be had, or holds no run, or another one than its record tells of.
    """
    repository, _, revision = name.removeprefix(HUB_RUN).partition("@")
    record_path = fetch(repository, RECORD_FILE, revision or "main")
    folder = os.path.dirname(record_path)
    record = finished_record(folder)
    multi_label = is_multi_label(record)
    kind = find_method(record["trainer"], multi_label)
    cfg = config_of(record, kind)
    if backbone:
        cfg.MODEL.BACKBONE.NAME = backbone
    cfg.DEVICE = device
    cfg.freeze()
    check_settings(kind, cfg)
    method = method_of(cfg, record["classnames"], multi_label)
    if method.towers.backbone_hash != record["backbone_hash"]:
        raise UserError(
            f"{name} was trained for another backbone than {cfg.MODEL.BACKBONE.NAME}: give backbone= the one that its card names"
        )
    if method.learner is not None:
        path = fetch(repository, WEIGHTS_FILE, os.path.basename(folder))
        if file_hash(path) != nested(record, "files", WEIGHTS_FILE):
            raise UserError(
                f"{name} holds other weights than its record tells of: share the run again"
            )
        try:
            state = load_file(path)
        except Exception as error:  # damaged bytes
            raise_machines(error, path)
            raise UserError(
                f"{path} can't be read ({short(error)}): share the run again"
            ) from error
        load_state(method, state, record["classnames"], path)
    return SavedRun(method, cfg, record, UNKNOWN_PICTURES)


def fetch(repository: str, file: str, revision: str) -> str:
    """Return the path of a file of a repository: the hub's newest one of a branch, else that of the cache.

    Raises:
        UserError: neither has it.
    """
    try:
        return download(repository, file, revision)
    except Exception as error:  # of the hub, of the network, or of a name that is none
        raise_machines(error, repository)
        with contextlib.suppress(ValueError):
            if path := path_in_cache(repository, file, revision):
                return path
        raise UserError(
            f"{HUB_RUN}{repository} has no {file} at {revision} that can be had from the hub ({short(error)}): check its name"
        ) from error


def short(error: Exception) -> str:
    """Return the beginning of an error's message in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__

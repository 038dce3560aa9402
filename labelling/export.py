"""A trained classifier for programs without this toolbox, in a folder:

- ``model.onnx``: pixels → probabilities, and the vacuity where the method has one. The image
  encoder with its prompts and the fused head; the classes' texts are constants in it.
- ``prompts.safetensors``: the learned prompts under the names of the run's checkpoint, and the
  texts' features.
- ``clip.safetensors``, for LoRA and ProLIP, which merge exactly: the changed CLIP under OpenAI's
  names. What prompts and other adapters learn can't be merged.
- ``README.md``: its description, its measures, and how to call it.
"""

import json
import math
import os
import warnings
from typing import Protocol

import torch
import torchvision.transforms as T
from safetensors.torch import save_file
from torch import Tensor, nn
from yacs.config import CfgNode

from trainers.common.console import markdown
from trainers.common.errors import UserError
from trainers.common.files import check_folder, mark_folder, write_atomically, write_text
from trainers.common.record_file import Record, finite, nested, shown_name
from trainers.method import Encoded, Method

from .pictures import is_path

MODEL = "model.onnx"
PROMPTS = "prompts.safetensors"
MERGED = "clip.safetensors"
CARD = "README.md"
EXPORT_OWNER = "cdc_export.txt"  # marks the folder of an export (``check_folder``)
OPSET = 18
ON_CARD = {  # of a split: their names on the card
    "images": ("images", "{}"),
    "accuracy": ("accuracy", "{:.2f} %"),
    "macro_f1": ("macro F1", "{:.2f} %"),
    "ece": ("expected calibration error", "{:.2f} %"),
    "nll": ("negative log-likelihood", "{:.4f}"),
}
# of the model's probabilities and vacuities against torch's in fp32; a test holds it
EXPORT_TOLERANCE = 1e-4


class Exportable(Protocol):
    """The attributes of a ``PromptedClassifier`` that an export reads."""

    method: Method
    cfg: CfgNode
    record: Record
    transform: T.Compose
    encoded: Encoded | None

    @property
    def classnames(self) -> list[str]: ...

    @property
    def background(self) -> str: ...


class FusedClassifier(nn.Module):
    """The exported model: pixels (B, 3, H, W) in [0, 1] → probability (B, K) and, where the method
    has one, vacuity (B,).

    Args:
        classifier: on the CPU in fp32.
        normalize: torchvision's ``Normalize``, the last step of the run's test transform, or None.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Exportable, normalize: T.Normalize | None) -> None:
        super().__init__()
        self.method = classifier.method
        self.encoded = classifier.encoded
        for name, value in (("mean", 0.0), ("std", 1.0)):
            self.register_buffer(name, torch.tensor(getattr(normalize, name, value)).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        images = (pixels - self.mean) / self.std  # (B, 3, H, W)
        answer = self.method.answer(images[None], self.encoded)
        values = answer.probability, answer.vacuity  # (B, K), (B,)
        return tuple(value for value in values if value is not None)


def export(classifier: Exportable, folder: str | os.PathLike[str]) -> None:
    """Writes the files above into a folder, which is made; each is whole or not there.

    classifier: on the CPU in fp32.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.
        UserError: the folder is none, or holds somebody's files of these names; or the text depends on
            the image.
    """
    if not is_path(folder) or not os.fspath(folder):
        raise UserError(f"export to {folder!r}: give a folder")
    if classifier.encoded is None:
        raise UserError(
            f"{classifier.record['trainer']} can't be exported: its texts depend on the image, so the model would need the "
            "text encoder for every image; load the run with PromptedClassifier instead"
        )
    check_folder("export to", os.fspath(folder), EXPORT_OWNER, (CARD, MODEL, PROMPTS, MERGED))
    mark_folder(
        os.fspath(folder), EXPORT_OWNER
    )  # before the work: it may be on a disk that can't be written
    last = classifier.transform.transforms[-1]  # which the model takes over
    model = FusedClassifier(classifier, last if isinstance(last, T.Normalize) else None).eval()
    size = model.method.backbone.image.image_size
    # of two images, or the number would be part of the model
    pixels = torch.zeros(2, 3, size, size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's exporter about torch
        outputs = ["probability", "vacuity"][: len(model(pixels))]
        program = torch.onnx.export(
            model,
            (pixels,),
            input_names=["pixels"],
            output_names=outputs,
            dynamic_shapes=({0: "images"},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # as it would be if the exporter wrote the file itself
    program.model.metadata_props.update(facts(classifier))
    merged = classifier.method.merged()
    weights = merged and merged.openai_state()
    write_text(f"{folder}/{CARD}", model_card(classifier, outputs, weights is not None))
    write_atomically(f"{folder}/{MODEL}", lambda path: program.save(path, external_data=False))
    learner = classifier.method.learner
    tensors = {} if learner is None else learner.state_dict()
    tensors = {**tensors, "text_features": classifier.encoded[0]}  # (M, K, E)
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    write_atomically(
        f"{folder}/{PROMPTS}", lambda path: save_file(tensors, path, facts(classifier))
    )
    if weights:
        weights = {name: value.contiguous() for name, value in weights.items()}
        write_atomically(
            f"{folder}/{MERGED}", lambda path: save_file(weights, path, facts(classifier))
        )


def facts(classifier: Exportable) -> dict[str, str]:
    """The strings that both files carry along."""
    record = classifier.record
    return {
        **{name: str(record[name]) for name in ("trainer", "backbone_hash", "shots", "seed")},
        "backbone": classifier.cfg.MODEL.BACKBONE.NAME,
        "dataset": shown_name(record),
        "classnames": json.dumps(classifier.classnames, ensure_ascii=False),
    }


def measures_on_card(record: Record) -> str:
    """Return the measures of a run's first tested split, as Markdown."""
    for split, measures in record["metrics"].items():
        lines = [
            f"| {name} | {form.format(measures[key])} |"
            for key, (name, form) in ON_CARD.items()
            if finite(measures.get(key)) is not None
        ]
        return "\n".join(
            [
                "On the run's own images and classes, computed in its own precision.\n",
                f"| {markdown(split)} | |",
                "| --- | --- |",
                *lines,
            ]
        )
    return "The run was not tested."


def resizing(node: CfgNode, size: int) -> tuple[str, str]:
    """Return how a run's test images are resized, in words, and as a call of Pillow's on ``image``.

    node: ``cfg.INPUT``; size: pixels of a side.
    """
    filter_name = f"Image.Resampling.{node.INTERPOLATION.upper()}"
    border = (1 - node.CROP_PCT) / 2  # share of the picture that is cut off at each side
    if node.SQUASH:
        whole = math.floor(size / node.CROP_PCT)
        edge = (whole - size) // 2
        centre = f".crop({(edge, edge, edge + size, edge + size)})" if border else ""
        return (
            f"on both sides ({node.INTERPOLATION}),\nwhatever their shape",
            f"image.resize({(whole, whole)}, {filter_name}){centre}",
        )
    centre = f", bleed={border:.4g}" if border else ""
    return (
        f"on the shorter side ({node.INTERPOLATION}) and\ncropped at the centre",
        f"ImageOps.fit(image, {(size, size)}, {filter_name}{centre})",
    )


def model_card(classifier: Exportable, outputs: list[str], is_merged: bool = False) -> str:
    """The text of ``CARD``; what comes from the record or the user is shown as it is, whatever a
    page would make of it."""
    record = classifier.record
    cfg = classifier.cfg
    names = classifier.classnames
    trainer = markdown(record["trainer"])
    dataset = markdown(shown_name(record))
    shots = record["shots"] if record["shots"] > 0 else "all"
    origin = {
        "trained on": f"{shown_name(record)}, {record['classes']} classes, {shots} images a class",
        "seed": record["seed"],
        "learned parameters": nested(record, "parameters", "learnable"),
        "prompts": record["prompts_hash"],
        "CLIP's weights": record["backbone_hash"],
        "split": record["split_hash"],
        "finished": nested(record, "finished"),
        "code": nested(record, "git_commit"),
        "torch": nested(record, "versions", "torch"),
    }
    made = "\n".join(f"| {name} | {markdown(str(value))} |" for name, value in origin.items())
    tested = measures_on_card(record)
    vacuity = " and `vacuity` (N,) in (0, 1], which is large where the model has no evidence"
    vacuity = vacuity if "vacuity" in outputs else ""
    merged = (
        f"`{MERGED}` is the changed CLIP under OpenAI's names, for `--backbone {MERGED}`; a model of OpenCLIP's whose "
        f"activation is GELU as `--backbone open_clip:MODEL/{MERGED}`."
        if is_merged
        else "No CLIP weights are written: what these prompts learned can't be added to them."
    )
    note = classifier.method.note
    note = note and f" {markdown(note)}"
    size = classifier.method.backbone.image.image_size
    shown, fitted = resizing(cfg.INPUT, size)
    classes = "\n".join(f"{number}. {markdown(name)}" for number, name in enumerate(names))
    # the example opens a picture as ``image_files.as_seen`` does
    return f"""\
# {trainer} on {dataset}

An image classifier: the CLIP {markdown(cfg.MODEL.BACKBONE.NAME)} under prompts of the trainer {trainer}, for {len(names)} classes.{note}

| what | value |
| --- | --- |
{made}

## Figures

{tested}

## Use

`{MODEL}` takes `pixels`, fp32 (N, 3, {size}, {size}), red, green, blue in [0, 1], and gives `probability` (N, K){vacuity}. It
normalises the pixels itself. The run's test images were resized to {size} pixels {shown}. Its outputs are those of torch in fp32 to {EXPORT_TOLERANCE:g}.

```python
import json
import numpy
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("{MODEL}")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classnames"])
image = ImageOps.exif_transpose(Image.open("cat.jpg")).convert("RGBA")
image = Image.alpha_composite(Image.new("RGBA", image.size, {json.dumps(classifier.background)}), image).convert("RGB")
image = {fitted}
pixels = numpy.asarray(image, dtype="float32").transpose(2, 0, 1)[None] / 255
[{", ".join(outputs)}] = session.run(None, {{"pixels": pixels}})
print(classes[probability[0].argmax()], probability[0].max())
```

`{PROMPTS}` holds the learned prompts under the names of the run's checkpoint, and `text_features`, the classes' features.
{merged}

## Classes

{classes}
"""

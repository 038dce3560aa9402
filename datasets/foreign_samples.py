"""Few-shot samples that other toolboxes have drawn, read from ``split_fewshot`` of a data set's folder.

- ``shot_S-seed_N.pkl``: CoOp's (github.com/KaiyangZhou/CoOp) and of everything built on it, read without trusting it (``pickles.py``).
- ``shot_S-seed_N.json``: cross_modal_adaptation's (github.com/linzhiqiu/cross_modal_adaptation, ``indices/<data set>``):
  ``{part: {"data": [{"impath": …, "label": …, "classname": …}, …], "indices": […]}}``.
- ``shot_S-seed_N_train.jsonl`` and ``…_val.jsonl``: 2SFS' (github.com/FarinaMatteo/rethinking_fewshot_vlms), a line an image:
  ``{"_impath": …, "_label": …, "_classname": …, "_domain": 0}``.
"""

import os
from collections.abc import Iterable
from typing import Any

from trainers.common.errors import UserError
from trainers.common.readers import parse_json, read_json, read_text

from .pickles import read_pickle

Sample = dict[str, list[tuple[str, int]]]  # part → (path as written, label)
ENDINGS = {".pkl": "CoOp", ".json": "cross_modal_adaptation", "_train.jsonl": "2SFS"}


def find_foreign(folder: str, shots: int, seed: int) -> tuple[str, str] | None:
    """Path of the sample that somebody else has drawn, and who; None where there is none.

    Raises:
        UserError: there are several.
    """
    paths = {
        os.path.join(folder, f"shot_{shots}-seed_{seed}{ending}"): whose
        for ending, whose in ENDINGS.items()
    }
    found = [(path, whose) for path, whose in paths.items() if os.path.isfile(path)]
    if len(found) > 1:
        raise UserError(
            f"{folder} has several samples of {shots} shots and seed {seed} ({', '.join(os.path.basename(path) for path, _ in found)}): "
            "which is meant? Move the others elsewhere"
        )
    return found[0] if found else None


def read_foreign(path: str, parts: Iterable[str]) -> Sample:
    """The images that it names.

    Args:
        path: as ``find_foreign`` gives it; parts: those it must have.

    Raises:
        UserError: it can't be read, or is made otherwise.
    """
    if path.endswith(".pkl"):
        return read_pickle(path, parts)
    try:
        if path.endswith(".json"):
            content = read_json(path)
            return {
                part: [entry(item, "impath", "label") for item in content[part]["data"]]
                for part in parts
            }
        return {
            part: [
                entry(parse_json(line), "_impath", "_label")
                for line in lines(f"{path.removesuffix('_train.jsonl')}_{part}.jsonl")
            ]
            for part in parts
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"few-shot sample {path} is not read ({type(error).__name__}: {error}): it is neither cross_modal_adaptation's nor 2SFS's, "
            "see datasets/foreign_samples.py; move it elsewhere"
        ) from error


def lines(path: str) -> list[str]:
    return [line for line in read_text(path).splitlines() if line.strip()]


def entry(item: Any, path: str, label: str) -> tuple[str, int]:
    if (
        not isinstance(item[path], str)
        or not isinstance(item[label], int)
        or isinstance(item[label], bool)
    ):
        raise TypeError(f"{item!r:.80} has no path and label")
    return item[path], item[label]

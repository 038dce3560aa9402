"""Reads the pickles that CoOp leaves in a data folder, without trusting them.

A pickle is a program, and a data folder is often somebody else's. The one class these files need is
Dassl's ``Datum``; in its place stands an empty class, so that nothing at all is called while
reading.
"""

import io
import pickle
from collections.abc import Iterable

from ..common.errors import UserError, raise_machines
from ..common.readers import BoundedUnpickler

ADMITTED = ("dassl.data.datasets.base_dataset", "Datum")


class DatumUnpickler(BoundedUnpickler):
    """Admits lists, dicts, strings, numbers and ``Datum``.

    Raises:
        pickle.UnpicklingError: the pickle names anything else; it has not been imported or called.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        # a new one each time: a pickle may set its attributes
        self.stand_in = type("Datum", (), {})

    def find_class(self, module: str, name: str) -> type:
        if (module, name) != ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only Datum is admitted")
        return self.stand_in


def read_pickle(path: str, parts: Iterable[str]) -> dict[str, list[tuple[str, int]]]:
    """The images that a pickle of CoOp lists.

    Args:
        path: a few-shot sample, or ImageNet's ``preprocessed.pkl``: ``{part: [Datum, ...]}``.
        parts: names of the parts that it must have.

    Returns:
        dict of part → list of (path as written, label).

    Raises:
        UserError: it can't be read, names anything but ``Datum``, or is made otherwise.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
        content = DatumUnpickler(data).load()
        return {part: list(map(entry, content[part])) for part in parts}
    except Exception as error:  # damaged or hostile bytes can raise anything
        raise_machines(error, path)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{path} is not read ({reason}): it is not a few-shot file of CoOp: delete it"
        ) from error


def entry(item: object) -> tuple[str, int]:
    state = vars(item)
    path = state["_impath"]
    label = state["_label"]
    if not isinstance(path, str) or not isinstance(label, int) or not 0 <= label < 2**31:
        # their own text may have no end
        raise TypeError(
            f"a Datum whose path is a {type(path).__name__} and whose label is a {type(label).__name__}"
        )
    return path, label

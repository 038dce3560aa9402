"""Hashes of weights."""

import hashlib
from collections.abc import Iterable

from torch import Tensor


def tensor_hash(tensors: Iterable[Tensor]) -> str:
    """Fingerprint (16 hex digits) of tensors: the same for the same values, wherever they lie."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]

"""Dassl's optimisers under their names, by torch's classes. Weights always decay by themselves, not
through the gradient.

`RAdam` and `PlainRAdam` (Liu et al., 2020), Adam whose first steps, while the second moment is
not yet known, are steps of momentum, are the same function, and torch's arithmetic. `AdamW` differs
from Dassl's in `eps`, which torch adds to the root of the *corrected* second moment: the same as an
`eps` of √(1 − β₂ᵗ) times as much. All take torch's settings by name.
"""

from functools import partial

import torch

RAdam = PlainRAdam = partial(torch.optim.RAdam, decoupled_weight_decay=True)
AdamW = partial(torch.optim.AdamW, weight_decay=0)

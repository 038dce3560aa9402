"""Which runs a protocol consists of, which of them are done, and by which rules a recipe varies."""

from trainers.common import environment as environment

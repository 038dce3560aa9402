"""Reading run records: tables, curves and the report."""

from trainers.common import environment as environment

"""Reading run records: tables, curves and the report."""

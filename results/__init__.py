"""Reading run records: tables of base, new and their harmonic mean."""

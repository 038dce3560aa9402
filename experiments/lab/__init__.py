"""What is measured of finished runs beyond their records: uncertainty, drawn factors, templates."""

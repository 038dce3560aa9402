"""What is measured of finished runs beyond their records, most of it with their models loaded."""

"""Basics for every other module: errors, files, locks, readers. Nothing here needs torch."""

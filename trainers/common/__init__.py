"""What everything else may use: errors, files, locks, readers. Nothing here needs torch."""

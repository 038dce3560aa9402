"""The commands that are installed with the package; nothing imports them but commands."""

"""Folders and files of labelled images: how they are laid out, which look alike, and what a run takes."""

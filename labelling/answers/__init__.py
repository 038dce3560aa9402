"""Answers to many images: rows, tables, Label Studio's tasks, and what is kept of a labelling that stops."""

"""Prompt learners that several methods share."""

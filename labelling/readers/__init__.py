"""Readers of folders and files that say which labels pictures have."""

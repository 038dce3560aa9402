"""Prompt-learning trainers for Dassl: one file per method. Importing a method's module registers its trainer."""

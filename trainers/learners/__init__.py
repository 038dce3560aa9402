"""Learners that several methods share: contexts, independent prompts, classifiers of image features."""

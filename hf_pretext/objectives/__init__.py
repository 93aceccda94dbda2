"""Objectives, one per file: settings, corruption, head and loss. The file name is the name of the objective."""

"""Conversion to and from other libraries: open_clip, sentence-transformers, evaluate."""

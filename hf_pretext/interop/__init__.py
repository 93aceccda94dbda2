"""Conversion to and from other libraries: open_clip, timm, sentence-transformers, evaluate."""

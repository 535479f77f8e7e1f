"""Transforms by name: preprocessing and augmentation of examples, whatever their kind, before any tokenizer."""

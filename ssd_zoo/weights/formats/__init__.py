"""Tensors by name out of files of other projects; one file a format."""

"""Readers of other projects' file formats, one module a format."""

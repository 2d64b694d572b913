"""Entries of trained weights, and reading of their files."""

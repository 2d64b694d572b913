"""Weights of other projects under our names; one file an origin."""

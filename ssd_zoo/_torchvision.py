"""A clear error where torchvision and torch do not fit each other. This file is imported before all others."""

from importlib.metadata import version

try:
    import torchvision  # noqa: F401
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    raise ImportError(
        f"torchvision {version('torchvision')} does not fit torch {version('torch')}: {error}. Install a pair of the "
        "same build: pip install --force-reinstall torch torchvision."
    ) from error

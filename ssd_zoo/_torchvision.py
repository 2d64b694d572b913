"""A clear error where torchvision and torch do not fit each other. This file is imported before all others."""

import gc
from importlib.metadata import version

# Importing torch and torchvision makes 350,000 objects that stay, and Python would search them for garbage 900 times:
# 0.5 of 4.2 s of processor time until the first box of `ssd-zoo detect`.
_collects = gc.isenabled()
gc.disable()
try:
    import torchvision  # noqa: F401
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    raise ImportError(
        f"torchvision {version('torchvision')} does not fit torch {version('torch')}: {error}. Install a pair of the "
        "same build: pip install --force-reinstall torch torchvision."
    ) from error
finally:
    if _collects:
        gc.enable()

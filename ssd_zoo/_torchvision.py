"""A clear error where torchvision and torch do not fit each other. This file is imported before all others."""

import gc
from importlib.metadata import version

# Importing torch and torchvision makes some 300,000 objects that stay. Python would search them for garbage again and
# again: importing this package took 3.6 s of processor time with that, and 2.9 without.
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
        if gc.get_freeze_count() == 0:
            # Puts all objects among the old ones without a search, which took .2 s.
            gc.freeze()
            gc.unfreeze()
        gc.enable()

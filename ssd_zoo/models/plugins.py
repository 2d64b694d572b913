"""Builders of other packages, found by entry points and imported late.

A package lists each builder in the entry-point group `ssd_zoo.models`, under the builder's name:

    [project.entry-points."ssd_zoo.models"]
    acme_ssd300 = "acme_ssd:acme_ssd300"
"""

import inspect
import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version

from ssd_zoo.detector.ssd import SSD

__all__ = ["GROUP", "LazyBuilder", "find_plugins", "missing_package", "package_of"]

GROUP = "ssd_zoo.models"
_NAME = re.compile(r"[\w.-]{1,100}")
_log = logging.getLogger("ssd_zoo")


class LazyBuilder:
    """Builder of another package, imported when it is first needed.

    Args:
        entry: The entry point, whose name is the builder's.
        registered: The registered builders by name, to which the import adds.
    """

    def __init__(self, entry: EntryPoint, registered: MutableMapping[str, Callable[..., SSD]]) -> None:
        self._entry, self._registered = entry, registered
        self.__name__ = self.__qualname__ = entry.name
        self.__module__ = entry.module

    def __call__(self, *args: object, **kwargs: object) -> SSD:
        """Import the builder and build the model."""
        return self.load()(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.load())

    @property
    def source(self) -> str:
        """Name and version of the package."""
        return f"{self._entry.dist.name} {self._entry.dist.version}" if self._entry.dist else self._entry.value

    def load(self) -> Callable[..., SSD]:
        """Import the builder, which registers it.

        Raises:
            ImportError: If the package can't be imported, or does not register the builder; the message names it.
        """
        name, before = self._entry.name, set(self._registered)
        try:
            self._entry.load()
        except (Exception, SystemExit) as error:
            # A module that failed runs again at the next import, and registers its builders again.
            for added in self._registered.keys() - before:
                if self._registered[added].__module__ not in sys.modules:
                    del self._registered[added]
            raise ImportError(
                f"The model {name!r} is of the package {self.source}, whose {self._entry.value} can't be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
        if name not in self._registered:
            raise ImportError(
                f"The package {self.source} lists a model {name!r} and registers none of that name: its builder needs "
                "the decorator ssd_zoo.register_model."
            )
        return self._registered[name]


def find_plugins(registered: MutableMapping[str, Callable[..., SSD]]) -> dict[str, LazyBuilder]:
    """Find the builders that installed packages list, without importing them.

    Args:
        registered: The registered builders by name. They win over others of their names. Such names, and those not in
            lower case, are left out with a warning.
    """
    found: dict[str, LazyBuilder] = {}
    for entry in entry_points(group=GROUP):
        plugin = LazyBuilder(entry, registered)
        if entry.name in found or entry.name in registered:
            _log.warning("%s lists a model %r, a name that is taken; it is left out.", plugin.source, entry.name)
        elif entry.name != entry.name.lower():
            _log.warning("%s lists a model %r, but names are in lower case; it is left out.", plugin.source, entry.name)
        else:
            found[entry.name] = plugin
    return found


def package_of(builder: Callable[..., SSD]) -> dict[str, str]:
    """Return module, package and version of another package's builder; empty for ours."""
    module = builder.__module__
    top = module.partition(".")[0]
    if top == __name__.partition(".")[0]:
        return {}
    names = {entry.dist.name for entry in entry_points(group=GROUP) if entry.dist and entry.module.split(".")[0] == top}
    names |= set() if names else set(packages_distributions().get(top, ()))
    return {"module": module} | ({"name": min(names), "version": version(min(names))} if names else {})


def missing_package(package: object) -> str:
    """Return a sentence on how to get a saved model's builder; empty if its package is not known.

    Args:
        package: What `package_of` returned when the model was saved; the text is of unknown origin.
    """
    known = package if isinstance(package, dict) else {}
    name, of_version, module = (known.get(key) for key in ("name", "version", "module"))
    if not all(
        text is None or (isinstance(text, str) and _NAME.fullmatch(text)) for text in (name, of_version, module)
    ):
        return ""
    if name is not None:
        return f" By its config the builder is of the package {name} {of_version or ''}: install that, if you trust it."
    if module in (None, "__main__"):
        return "" if module is None else " The builder was defined in a script: import a module that registers it."
    loaded = "registers none of that name" if module in sys.modules else "has not been imported"
    return f" By its config the builder is of the module {module}, which {loaded}: import {module} before."

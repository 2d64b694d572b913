"""What mkdocstrings does not read by itself: "Example:" sections."""

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Reads "Example:" as the section that mkdocstrings calls "Examples:"."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
            if obj.path == "ssd_zoo.models.options.Options":
                # Its keywords are those of functions, so the class has no such parameters.
                obj.docstring.value = obj.docstring.value.replace("Args:", "Keywords:")

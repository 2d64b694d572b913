"""What mkdocstrings does not read by itself: "Example:" sections, and the whole signatures of builders."""

import inspect
import re
from typing import Any

import griffe

import ssd_zoo


class ExampleSections(griffe.Extension):
    """Reads "Example:" as the section that mkdocstrings calls "Examples:"."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
            if obj.path == "ssd_zoo.models.options.Options":
                # Its keywords are those of functions, so the class has no such parameters.
                obj.docstring.value = obj.docstring.value.replace("Args:", "Keywords:")


class BuilderOptions(griffe.Extension):
    """Shows each option of a builder where its source has `**options`, as `@register_model` does at run time."""

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        if "options" not in func.parameters or func.name not in ssd_zoo.list_models():
            return
        annotations = func.modules_collection["ssd_zoo.models.options.Options"].all_members
        del func.parameters["options"]
        for name, parameter in inspect.signature(ssd_zoo.get_model_builder(func.name)).parameters.items():
            if name not in func.parameters:
                func.parameters[name] = griffe.Parameter(
                    name,
                    annotation=annotations[name].annotation,
                    kind=griffe.ParameterKind.keyword_only,
                    default="..." if parameter.default is ... else repr(parameter.default),
                )

"""Makes README the description on PyPI, whose readers have no clone: no file lies beside it there."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Description(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": describe(readme)}


def describe(readme: str) -> str:
    """Return README without relative links and pictures, and with commands that need no clone."""
    text = re.sub(r"^## Development\n.*?(?=^## )", "", readme, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^.*pip install \. && \S*ssd-zoo", "pip install ssd_zoo\nssd-zoo", text, count=1, flags=re.MULTILINE)
    text = text.replace("examples/*.jpg", "photos").replace("examples/", "photos/").replace('".[', '"ssd_zoo[')
    text = re.sub(r"<!--.*?-->\n+", "", text)
    text = re.sub(r"^!\[[^]]*\]\((?!https:)[^)]*\)\n+", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^]]+)\]\((?!https:)[^)]*\)", r"\1", text)

"""Digests that show whether a config.json and its tensors were saved together."""

import hashlib
import json
from collections.abc import Mapping

from ssd_zoo.weights.outside import JSON

__all__ = ["are_of_two_saves", "digest_in", "sign"]


def digest_in(config: JSON) -> str | None:
    """Return the digest of the tensors that a config names.

    None without one, and for configs of older versions, whose ids can't be checked.
    """
    found = config.get("weights_id") if isinstance(config, dict) else None
    return found if isinstance(found, str) and found.startswith("sha256:") else None


def sign(config: Mapping[str, object]) -> str:
    """Return a digest of a config, without its own `config_id`."""
    signed = json.dumps({name: value for name, value in config.items() if name != "config_id"}, sort_keys=True)
    return f"sha256:{hashlib.sha256(signed.encode()).hexdigest()}"


def are_of_two_saves(ours: Mapping[str, JSON], theirs: Mapping[str, JSON]) -> bool:
    """Return whether a config.json and its tensors are of two saves.

    A config.json that was edited after its save is still of the same save.

    Args:
        ours: The config.json.
        theirs: The config in the header of the tensors' file.
    """
    if ours.get("weights_id") != theirs.get("weights_id"):
        return True
    # Older versions did not sign.
    return ours.get("config_id") != theirs.get("config_id") and ours.get("config_id") in (None, sign(ours))

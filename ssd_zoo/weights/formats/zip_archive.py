"""Checksums of zip archives, which PyTorch does not compare."""

import zipfile
from pathlib import Path

__all__ = ["check_sums"]

_CHUNK = 2**20


def check_sums(file: Path) -> None:
    """Check the checksums of a zip archive's members.

    Files that are not zip archives pass, and members without a checksum (0).

    Raises:
        ValueError: If a member has another checksum than the archive says.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        # PyTorch writes 0 where it was told to compute none.
        for member in (member for member in archive.infolist() if member.CRC):
            try:
                with archive.open(member) as stream:
                    while stream.read(_CHUNK):
                        pass
            except zipfile.BadZipFile as error:
                raise ValueError(f"{file} is damaged: {error}. Get or save it again.") from error

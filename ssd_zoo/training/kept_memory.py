"""Memory that a process keeps while it trains on a CPU."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["keep_memory"]

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_MB = 2**20
_statements = 0


@contextmanager
def keep_memory() -> Iterator[None]:
    """Keep the memory of freed tensors for reuse, within a with-statement.

    Otherwise glibc returns each large tensor's memory to the system, which hands it out anew in pages of zeros. That
    may take half of the time of training on a CPU. With it a process holds a tenth more memory. Outside Linux, where
    there is no glibc, it does nothing. On a GPU torch keeps memory anyway. Of nested with-statements only the outermost
    has an effect.
    """
    global _statements
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        yield
        return
    # All memory in the heap, and none of the heap given back.
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    _statements += 1
    try:
        yield
    finally:
        _statements -= 1
        if _statements == 0:
            # glibc adjusts these limits up to these values by itself. Setting one of them ends that, so all are set.
            libc.mallopt(_MMAP_MAX, 2**16)
            libc.mallopt(_MMAP_THRESHOLD, 32 * _MB)
            libc.mallopt(_TRIM_THRESHOLD, 64 * _MB)
            libc.malloc_trim(0)

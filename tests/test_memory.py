import sys

import pytest
from conftest import run_code

# Tells how many pages the system hands out for 64 MB taken three times, as it is and with memory kept, and how many
# more the process holds at the end.
PROGRAM = """
import resource, torch
from ssd_zoo.training import keep_memory

def held():
    return int(open("/proc/self/statm").read().split()[1])

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

outside, at_first = faults(), held()
with keep_memory():
    with keep_memory():
        faults()
    inside = faults()
print(outside, inside, held() - at_first)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_is_taken_again_and_given_back():
    outside, inside, more = map(int, run_code(PROGRAM).stdout.split())
    pages = 64 * 2**20 // 4096
    assert outside >= 3 * pages
    assert inside < pages / 10
    assert more < pages / 2

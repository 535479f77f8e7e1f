"""What the C library does with memory that was freed."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
from lmlab.parallel.memory import keep_memory

if sys.argv[1] == "keep":
    keep_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(PAGES * 4096, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

PAGES = 16384
faults()
print(min(faults() for _ in range(3)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_memory_that_was_freed_is_used_again_without_page_faults():
    def faults(how):
        return int(subprocess.run([sys.executable, "-c", CODE, how], check=True, capture_output=True, text=True).stdout)

    usual = faults("as it is")  # with huge pages, fewer than there are pages
    assert faults("keep") <= usual / 8

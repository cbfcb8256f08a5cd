"""How a network computes, decided in one place."""

import platform
import resource
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from model.device import use_threads

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import torch
from model.device import choose
torch.set_num_threads(2)
compute, tiny = choose("cpu"), torch.full((1 << 20,), 1e-40)
with compute.denormals_off():
    inside = int((tiny * 0.9).count_nonzero())
print(inside, int((tiny[:8] * 0.9).count_nonzero()))
"""


def test_the_smallest_numbers_are_zero_in_every_thread_of_a_step_and_nowhere_else():
    said = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, cwd=ROOT).stdout

    assert said.split() == ["0", "8"]


PAGES = """
import resource
from concurrent.futures import ThreadPoolExecutor
import torch
from model.device import choose
with ThreadPoolExecutor(1) as early:
    early.submit(bytearray, 1 << 20).result()
choose("cpu")

def pages_anew():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(40 << 20, dtype=torch.uint8), torch.ones(100 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def settled():  # a heap takes some rounds to find where both fit
    return min(pages_anew() for _ in range(8))

with ThreadPoolExecutor(1) as lane:
    print(settled(), lane.submit(settled).result())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told how to keep memory")
def test_what_a_step_frees_is_there_for_the_next_one_also_in_a_thread_and_after_other_threads():
    said = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True, cwd=ROOT).stdout

    n_pages = (140 << 20) // resource.getpagesize()
    assert all(int(anew) < n_pages / 10 for anew in said.split())


def test_threads_of_a_process_compute_with_the_threads_that_each_was_given():
    set_by_all = threading.Barrier(3)

    def found(n: int) -> int:
        use_threads(n)
        set_by_all.wait(60)
        torch.ones(1 << 16).add_(1)
        return torch.get_num_threads()

    before = torch.get_num_threads()
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(found, (1, 2, 3))) == [1, 2, 3]
    use_threads(before)

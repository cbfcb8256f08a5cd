"""How a network computes, decided in one place."""

import subprocess
import sys
from pathlib import Path

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

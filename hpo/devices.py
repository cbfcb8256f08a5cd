"""Which GPUs this machine lends to a command, without any framework: each worker is to see only its own."""

import os
from collections.abc import Mapping

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names of the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` takes them; empty where there are none.

    Those of the variable, where it is set (a cluster's scheduler sets it), else all that the driver has.
    """
    given = environment.get(VARIABLE)
    if given is not None:
        return [name for each in given.split(",") if (name := each.strip()) and name != "-1"]
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, no GPU
        return []
    try:
        return [str(number) for number in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def environment_of(gpus: list[str], worker: int) -> dict[str, str]:
    """What a worker's environment has besides: its own GPU, in turn where there are more workers."""
    return {VARIABLE: gpus[worker % len(gpus)]} if gpus else {}

"""Which GPUs a command may use, and which of them a worker sees."""

import pytest

from hpo.devices import environment_of, visible_gpus


@pytest.mark.parametrize(
    ("given", "gpus"),
    [("0,1", ["0", "1"]), ("3, GPU-8f2b,", ["3", "GPU-8f2b"]), ("", []), ("-1", []), ("MIG-1/2/3", ["MIG-1/2/3"])],
)
def test_a_scheduler_s_choice_of_gpus_is_kept_to(given, gpus):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": given}) == gpus


def test_without_a_driver_there_is_none():
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert visible_gpus({}) == []
    else:
        assert len(visible_gpus({})) == pynvml.nvmlDeviceGetCount()


def test_each_worker_sees_its_own_and_more_workers_share_them_in_turn():
    seen = [environment_of(["3", "5"], worker) for worker in range(3)]

    assert [each["CUDA_VISIBLE_DEVICES"] for each in seen] == ["3", "5", "3"]
    assert environment_of([], 0) == {}

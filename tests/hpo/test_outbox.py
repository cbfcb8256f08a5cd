import subprocess
import sys

from hpo.outbox import PARENT, open_outbox


def test_a_named_row_is_kept_once_and_the_first_counts(tmp_path):
    outbox = open_outbox(tmp_path, "s")

    assert outbox.put("1", "metrics", {"step": 0, "metrics": {"a": 1.0}}, once="epoch:0") is None
    assert outbox.put("1", "metrics", {"step": 0, "metrics": {"a": 2.0}}, once="epoch:0") == {
        "step": 0, "metrics": {"a": 1.0},
    }  # fmt: skip
    assert [item.payload["metrics"] for item in outbox.waiting()] == [{"a": 1.0}]


def test_rows_that_were_sent_stay_to_be_known_again(tmp_path):
    outbox = open_outbox(tmp_path, "s")
    outbox.put("1", "tags", {"a": "b"}, once="x")
    outbox.mark_sent([item.id for item in outbox.waiting()])

    assert outbox.waiting() == []
    assert outbox.put("1", "tags", {}, once="x") == {"a": "b"}


def test_a_forgotten_run_waits_again_in_full(tmp_path):
    outbox = open_outbox(tmp_path, "s")
    outbox.put("1", "open", {}, once="open")
    outbox.put("1", "tags", {"a": "b"})
    outbox.set_run_id("1", "abc", "sqlite:///x")
    outbox.mark_sent([item.id for item in outbox.waiting()])

    outbox.set_run_id("1", None, "sqlite:///x")

    assert [item.kind for item in outbox.waiting()] == ["open", "tags"]
    assert outbox.run_id("1") is None


def test_eight_processes_that_open_it_at_once_each_put_theirs(tmp_path):
    code = (
        "import sys; from pathlib import Path; from hpo.outbox import open_outbox\n"
        "box = open_outbox(Path(sys.argv[1]), 's')\n"
        "for i in range(10): box.put(sys.argv[2], 'tags', {'i': i})"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(n)]) for n in range(8)]

    assert [p.wait(timeout=120) for p in processes] == [0] * 8
    assert open_outbox(tmp_path, "s").n_waiting() == 80


def test_trials_whose_last_status_is_no_end_are_known(tmp_path):
    outbox = open_outbox(tmp_path, "s")
    told = [
        ("0", "RUNNING"),
        (PARENT, "RUNNING"),
        ("1", "RUNNING"),
        ("0", "FINISHED"),
        ("1", "SCHEDULED"),
        ("2", "KILLED"),
    ]
    for run, status in told:
        outbox.put(run, "status", {"status": status})

    assert outbox.unended() == ["1"]

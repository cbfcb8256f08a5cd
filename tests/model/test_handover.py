import threading

import pytest

from model.handover import ahead


def numbers(n, closed=None):
    try:
        yield from range(n)
    finally:
        if closed is not None:
            closed.append(threading.current_thread())


def test_results_come_in_the_order_of_the_items_through_several_stages():
    doubled = ahead(numbers(50), lambda n: 2 * n)

    assert list(ahead(doubled, lambda n: n + 1)) == [2 * n + 1 for n in range(50)]


def test_each_stage_works_in_a_thread_of_its_own():
    threads = ahead(ahead(numbers(3), lambda _: threading.current_thread()), lambda t: (t, threading.current_thread()))

    for first, second in threads:
        assert len({first, second, threading.current_thread()}) == 3


def test_what_a_stage_raises_is_raised_where_its_results_are_taken():
    results = ahead(ahead(numbers(9), lambda n: 6 // (3 - n)), lambda n: n)

    assert [next(results) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_closing_stops_all_threads_and_closes_what_they_read():
    before = threading.active_count()
    closed: list[threading.Thread] = []
    results = ahead(ahead(numbers(10**9, closed), lambda n: n), lambda n: n)

    assert next(results) == 0
    results.close()

    assert threading.active_count() == before
    assert len(closed) == 1


def test_work_is_never_further_ahead_than_the_capacity_allows():
    done: list[int] = []

    def work(n):
        done.append(n)
        return n

    results = ahead(numbers(10), work, capacity=1)

    for n in results:
        assert len(done) <= n + 3  # taken, waiting, and the one that waits for room

    assert done == list(range(10))


def test_old_results_give_way_to_new_ones_where_they_may_and_the_others_stay():
    all_put = threading.Event()

    def items():
        yield from ("a", "KEEP", "b", "c", "d")
        all_put.set()

    results = ahead(items(), lambda text: text, capacity=2, may_drop=str.islower)
    first = next(results)
    assert all_put.wait(60)

    rest = list(results)
    assert "KEEP" in [first, *rest]
    assert rest[-1] == "d"
    assert len(rest) <= 2


def test_what_may_not_be_dropped_takes_no_others_place():
    assert list(ahead(these("a", "LAST"), lambda text: text, may_drop=str.islower)) == ["a", "LAST"]


def these(*items):
    yield from items

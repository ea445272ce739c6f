from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

import pytest

from daemon.custody.workers import Lane, Workers

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 30
UNPRIVILEGED = """
import os, sys, threading
from daemon.custody.workers import Workers

os.nice(int(sys.argv[1]))
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
told = []
done = threading.Event()

def job():
    told.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    done.set()

Workers(1, "preparing", nice=10).put(job)
print(told[0] if done.wait(30) else "no thread")
"""


@pytest.mark.parametrize(("before", "then"), [(0, 10), (4, 14), (15, 19), (19, 19)])
def test_less_than_the_rest_whatever_the_rest_has(before: int, then: int) -> None:
    """A process that was made nicer, by `nice` or a unit's `Nice=`, may not take that back."""
    had = os.getpriority(os.PRIO_PROCESS, 0)
    asked = [sys.executable, "-c", UNPRIVILEGED, str(max(0, before - had))]
    said = subprocess.run(asked, capture_output=True, check=True, text=True).stdout
    assert int(said) == (then if had <= before else min(19, had + 10))


def test_jobs_of_a_lane_are_done_in_order_and_one_by_one() -> None:
    workers, lane, done = Workers(4, "worker"), Lane(), threading.Event()
    order: list[int] = []
    inside = threading.Lock()

    def job(number: int) -> None:
        assert inside.acquire(blocking=False)
        order.append(number)
        inside.release()
        if number == 99:
            done.set()

    for number in range(100):
        workers.put(lambda number=number: job(number), lane)  # type: ignore[misc]
    assert done.wait(SECONDS)
    assert order == list(range(100))


def test_a_lane_does_not_keep_the_others_waiting() -> None:
    workers, slow, gate, beside = Workers(2, "worker"), Lane(), threading.Event(), threading.Event()

    def wait() -> None:
        gate.wait(SECONDS)

    workers.put(wait, slow)
    workers.put(beside.set)
    assert beside.wait(SECONDS)
    gate.set()


def test_whoever_was_busy_last_is_called_first() -> None:
    workers, done = Workers(3, "worker"), SimpleQueue[int]()
    gates = [threading.Event() for _ in range(3)]

    def wait(number: int) -> None:
        gates[number].wait(SECONDS)
        done.put(threading.get_ident())

    for number in range(3):
        workers.put(partial(wait, number))
    for number in range(3):
        gates[number].set()
        last = done.get(timeout=SECONDS)
        idle(workers, number + 1)
    for _ in range(10):
        workers.put(lambda: done.put(threading.get_ident()))
        assert done.get(timeout=SECONDS) == last
        idle(workers, 3)


def test_a_lane_with_much_to_do_lets_the_others_in_between() -> None:
    workers, long, gate = Workers(1, "worker"), Lane(), threading.Event()
    order: SimpleQueue[str] = SimpleQueue()

    def hold() -> None:
        gate.wait(SECONDS)

    workers.put(hold)
    for _ in range(3):
        workers.put(lambda: order.put("long"), long)
    workers.put(lambda: order.put("other"))
    gate.set()
    assert [order.get(timeout=SECONDS) for _ in range(4)] == ["long", "other", "long", "long"]


def test_nothing_is_lost_or_done_twice_at_once_however_the_threads_are_switched() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers, lanes, done = Workers(3, "worker"), [Lane() for _ in range(5)], SimpleQueue[tuple[int, int]]()
        inside = [threading.Lock() for _ in lanes]

        def job(lane: int, number: int) -> None:
            assert inside[lane].acquire(blocking=False)
            done.put((lane, number))
            inside[lane].release()

        def produce(lane: int) -> None:
            for number in range(2000):
                workers.put(partial(job, lane, number), lanes[lane])

        producers = [threading.Thread(target=produce, args=(lane,)) for lane in range(len(lanes))]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join(SECONDS)
        seen: list[list[int]] = [[] for _ in lanes]
        for _ in range(2000 * len(lanes)):
            lane, number = done.get(timeout=SECONDS)
            seen[lane].append(number)
        assert seen == [list(range(2000))] * len(lanes)
    finally:
        sys.setswitchinterval(before)


def idle(workers: Workers, count: int) -> None:
    """Return when so many threads have nothing to do: they say so after their job."""
    until = time.monotonic() + SECONDS
    while len(workers._idle) < count:
        assert time.monotonic() < until


class Interrupted:
    """A lock behind whose release something else happens before its holder goes on."""

    def __init__(self) -> None:
        self.then: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        then, self.then = self.then, None
        if then is not None:
            then()


def test_a_job_that_comes_as_its_lane_falls_idle_is_done_once() -> None:
    workers, lane, lock = Workers(1, "worker"), Lane(), Interrupted()
    lane.lock = lock  # type: ignore[assignment]  # as much of a lock as is needed
    done: SimpleQueue[str] = SimpleQueue()

    def first() -> None:
        # The worker takes this job off the lane next; the lane is idle then, and the second one comes.
        lock.then = lambda: workers.put(lambda: done.put("second"), lane)
        done.put("first")

    workers.put(first, lane)
    assert done.get(timeout=SECONDS) == "first"
    assert done.get(timeout=SECONDS) == "second"
    workers.put(lambda: done.put("last"))
    assert done.get(timeout=SECONDS) == "last"

from __future__ import annotations

import os
import subprocess
import sys
import threading
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

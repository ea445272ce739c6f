"""Threads for what takes time: protocol rounds and calls into the HSM. Jobs of one lane run one by one, in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable


NICEST: Final = 19


class Lane:
    """Jobs that must not overlap."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], None]] = deque()
        self.lock = threading.Lock()
        self.scheduled = False


class _Worker:
    """A thread that has nothing to do, until it is called."""

    def __init__(self) -> None:
        self.lane: Lane | None = None
        self.call = threading.Lock()
        self.call.acquire()


class Workers:
    """A fixed number of threads, until the process ends. Jobs must not raise.

    The one that was busy last is called first: what a job needs is then still in its core's caches. And nobody else is
    woken, for whom there would be nothing to do but to get in the way.
    """

    def __init__(self, count: int, name: str, *, nice: int = 0) -> None:
        """nice: how much less than the rest of the process these threads get where there is too little for all."""
        self._lock = threading.Lock()
        self._ready: deque[Lane] = deque()
        self._idle: list[_Worker] = []
        for number in range(count):
            threading.Thread(target=self._work, args=(nice,), name=f"{name}-{number}", daemon=True).start()

    def put(self, job: Callable[[], None], lane: Lane | None = None) -> None:
        """Run a job soon: behind the others of its lane, or beside everything else."""
        lane = lane or Lane()
        with lane.lock:
            lane.jobs.append(job)
            if lane.scheduled:
                return
            lane.scheduled = True
        with self._lock:
            if not self._idle:
                self._ready.append(lane)
                return
            worker = self._idle.pop()
        worker.lane = lane
        worker.call.release()

    def _next(self, worker: _Worker, unfinished: Lane | None) -> Lane:
        with self._lock:
            if unfinished is not None:
                # Behind the other lanes: a ceremony with much to do does not keep one with little waiting.
                self._ready.append(unfinished)
            if self._ready:
                return self._ready.popleft()
            self._idle.append(worker)
        worker.call.acquire()
        lane, worker.lane = worker.lane, None
        assert lane is not None  # noqa: S101  (it is set before the call)
        return lane

    def _work(self, nice: int) -> None:
        if nice:
            # More than the process may have already, and never less than it has: that takes a privilege.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(NICEST, os.nice(0) + nice))
        worker, unfinished = _Worker(), None
        while True:
            lane = self._next(worker, unfinished)
            lane.jobs[0]()
            with lane.lock:
                lane.jobs.popleft()
                more = lane.scheduled = bool(lane.jobs)
            # Asked under the lock: whoever puts a job into an idle lane schedules it himself.
            unfinished = lane if more else None

"""The background thread: the same items in the same order, its errors and its death reach the caller."""

import ctypes
import gc
import itertools
import subprocess
import sys
import threading
import time

import pytest

from lmlab.data import prefetch
from lmlab.data.prefetch import Prefetch
from lmlab.errors import DataError

earlier: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def others():
    """Threads of iterators that tests before this one dropped may take a moment to end."""
    earlier.update(threading.enumerate())


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "lmlab-prefetch" and thread not in earlier]


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_items_come_in_order_whatever_the_depth(depth):
    with Prefetch(lambda k: k * k, range(3, 30, 2), depth) as items:
        assert list(items) == [k * k for k in range(3, 30, 2)]
    assert not threads()


def test_no_more_than_the_depth_is_made_ahead():
    made = []
    with Prefetch(lambda k: made.append(k) or k, range(sys.maxsize), 3) as items:
        assert next(items) == 0
        time.sleep(0.1)
        assert len(made) <= 1 + 3 + 1  # taken, waiting, and the one in the thread's hands


class Unreadable(OSError):
    pass


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_an_error_reaches_the_caller_in_its_turn_with_its_type_and_place(depth):
    def make(k):
        if k == 5:
            raise Unreadable("disk gone")
        return k

    items = Prefetch(make, range(100), depth)
    assert list(itertools.islice(items, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(Unreadable, match="disk gone") as caught:
        next(items)
    if depth:
        assert "batch 5" in caught.value.__notes__[0]
        assert not threads()
        with pytest.raises(StopIteration):
            next(items)


@pytest.mark.parametrize("killer", [SystemExit, KeyboardInterrupt, StopIteration])
def test_what_would_end_a_program_or_a_loop_in_silence_is_a_data_error(killer):
    def make(k):
        if k == 2:
            raise killer
        return k

    with (
        Prefetch(make, range(9), 2) as items,
        pytest.raises(DataError, match="loader thread died before it made batch 2"),
    ):
        list(items)


def test_a_killed_thread_is_a_data_error():
    with Prefetch(lambda k: time.sleep(0.01) or k, range(10**9), 2) as items:
        next(items)
        (thread,) = threads()
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        with pytest.raises(DataError, match="the loader thread died"):
            list(items)


def test_a_thread_that_is_gone_is_an_error_and_no_endless_wait(monkeypatch):
    def dies(make, places, made, stop):
        made.put((make(places.start), None))

    monkeypatch.setattr(prefetch, "_work", dies)
    with Prefetch(lambda k: k, range(4, 99), 2) as items:
        assert next(items) == 4
        with pytest.raises(DataError, match=r"died before it made batch 5.*Run the same command again"):
            next(items)


def test_closing_ends_a_thread_that_waits_for_room():
    items = Prefetch(lambda k: k, range(10**9), 2)
    next(items)
    items.close()
    items.close()
    assert not threads()
    with pytest.raises(StopIteration):
        next(items)


def test_dropping_the_iterator_ends_its_thread():
    items = Prefetch(lambda k: k, range(10**9), 2)
    (thread,) = threads()
    del items
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.mark.parametrize("last", ["next(items)", "next(items); del items"])
def test_no_thread_is_left_when_the_interpreter_goes_down(last):
    # One that is inside jax then aborts the process: "FATAL: exception not rethrown".
    code = (
        "import atexit, threading\n"
        "atexit.register(lambda: print([thread.name for thread in threading.enumerate()]))  # the last one to run\n"
        "from lmlab.data.prefetch import Prefetch\n"
        "items = Prefetch(lambda k: [k for _ in range(10**7)], range(10**9), 2)\n"
        f"{last}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['MainThread']\n"

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lmlab.training.signals import StopRequested, StopSignals


def send_soon(number=signal.SIGTERM, after=0.2):
    threading.Timer(after, os.kill, (os.getpid(), number)).start()


def test_a_signal_sets_a_flag_and_interrupts_nothing(capfd):
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGTERM"
        assert sum(range(1000)) == 499500
    assert not stop.abandoned


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_wait_that_may_be_interrupted(number):
    with StopSignals() as stop:
        send_soon(number)
        with pytest.raises(StopRequested), stop.interruptible():
            threading.Event().wait(60)
        assert stop.requested == signal.Signals(number).name


def test_a_signal_that_came_before_ends_the_wait_before_it_begins():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(StopRequested), stop.interruptible():
            pytest.fail("waited")


def test_work_in_a_thread_gives_its_result_or_its_error():
    with StopSignals() as stop:
        assert stop.wait_for(lambda a, b: a + b, 2, 3) == 5
        with pytest.raises(ZeroDivisionError):
            stop.wait_for(lambda: 1 / 0)
        assert not stop.abandoned


def test_work_that_does_not_end_is_left_behind():
    done = threading.Event()
    with StopSignals() as stop:
        send_soon()
        with pytest.raises(StopRequested):
            stop.wait_for(done.wait, 60)
        assert stop.abandoned
    done.set()


def test_signals_that_a_library_took_are_taken_back():
    with StopSignals() as stop:
        signal.signal(signal.SIGTERM, lambda *_: None)
        stop.listen_again()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGTERM"


def test_the_handlers_from_before_are_back_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals(), StopSignals():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_outside_the_main_thread_nothing_is_listened_to_and_everything_works():
    found = []

    def work():
        with StopSignals() as stop, stop.interruptible():
            found.append(stop.wait_for(lambda: 7))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [7]


DEAF = """
import hashlib
from lmlab.training.signals import StopSignals
with StopSignals():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2 * 10**9)  # native code, in which Python hears no signal
"""


def test_the_second_ctrl_c_leaves_at_once_even_from_native_code():
    child = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGINT)
    assert b"SIGINT: saving, then leaving" in child.stderr.readline() + child.stderr.readline()
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    assert child.wait() == 130
    child.stdout.close()
    child.stderr.close()


def test_a_second_sigterm_is_no_reason_to_leave_without_saving():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        assert stop.requested == "SIGTERM"

"""A process that ends without a word is noticed, one that says farewell is not, and strangers do not matter."""

import queue
import socket
import threading

from lmlab.parallel.lifelines import KEY, watch_peers


class Coordination:
    """What jax's client does, within one process."""

    def __init__(self):
        self.values, self.there = {}, threading.Event()

    def key_value_set(self, key, value):
        self.values[key] = value
        self.there.set()

    def blocking_key_value_get(self, key, timeout_ms):
        assert self.there.wait(timeout_ms / 1000)
        return self.values[key]


def three():
    """Farewell functions of three processes, and the queue of those who noticed a death."""
    client, noticed = Coordination(), queue.Queue()
    lines = []
    original = socket.create_connection

    def remembered(*args, **kwargs):
        lines.append(original(*args, **kwargs))
        return lines[-1]

    socket.create_connection = remembered
    try:
        farewells = [watch_peers(client, "127.0.0.1", i, lambda i=i: noticed.put(i)) for i in range(3)]
    finally:
        socket.create_connection = original
    return client, farewells, lines, noticed


def wait_until_heard(farewells, lines):
    for _ in range(1000):
        if len(farewells[0].__self__._lines) == len(lines):
            return
        threading.Event().wait(0.01)
    raise AssertionError("process 0 heard too few")


def test_process_0_notices_a_death():
    _, farewells, lines, noticed = three()
    wait_until_heard(farewells, lines)
    lines[0].shutdown(socket.SHUT_RDWR)  # what the system does for a killed process
    assert {noticed.get(timeout=30), noticed.get(timeout=30)} == {0, 1}  # (1 is the end that was cut)


def test_the_others_notice_the_death_of_process_0():
    _, farewells, lines, noticed = three()
    wait_until_heard(farewells, lines)
    for line in tuple(farewells[0].__self__._lines):
        line.shutdown(socket.SHUT_WR)
    assert {noticed.get(timeout=30), noticed.get(timeout=30)} == {1, 2}


def test_farewells_are_no_deaths_in_any_order():
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        _, farewells, lines, noticed = three()
        wait_until_heard(farewells, lines)
        for i in order:
            farewells[i]()
            lines[i - 1].shutdown(socket.SHUT_WR) if i else None
        threading.Event().wait(0.2)
        assert noticed.empty(), order


def test_a_stranger_at_the_port_is_no_death():
    client, farewells, lines, noticed = three()
    wait_until_heard(farewells, lines)
    port = int(client.values[KEY].split()[0])
    for word in (b"", b"GET / HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(word)
    threading.Event().wait(0.2)
    assert noticed.empty()
    lines[1].shutdown(socket.SHUT_RDWR)
    assert noticed.get(timeout=30) in (0, 2)


def test_where_no_connection_may_be_had_the_heartbeat_must_do():
    client = Coordination()
    watch_peers(client, "no.such.host.invalid", 0, lambda: None)()
    watch_peers(client, "no.such.host.invalid", 1, lambda: None)()

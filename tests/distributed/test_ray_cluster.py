"""Joining a cluster: what listens but is not Ray is told at once. What does not listen: tests/jobs/bad_input."""

import socket
import threading

import pytest
import ray

from configs.errors import InputError
from configs.schema import ClusterConfig
from distributed import ray_cluster
from distributed.ray_cluster import connect

SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.fixture
def joined(monkeypatch):
    """The addresses at which Ray was asked to join a cluster; none is."""
    addresses = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **_: addresses.append(address))
    return addresses


@pytest.fixture
def server():
    """Starts a server that says something to the first who comes; returns its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def answer(words):
            connection, _ = listener.accept()
            held.append(connection)
            connection.sendall(words)

        def start(words):
            threading.Thread(target=answer, args=(words,), daemon=True).start()
            return f"127.0.0.1:{listener.getsockname()[1]}"

        yield start
        for connection in held:
            connection.close()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_grpc_server_is_joined(joined, server, scheme):
    address = scheme + server(SETTINGS)
    connect(ClusterConfig(address=address))
    assert joined == [address]


def test_the_address_may_come_from_the_environment(joined, server, monkeypatch):
    address = server(SETTINGS)
    monkeypatch.setenv("RAY_ADDRESS", address)
    connect(ClusterConfig())
    assert joined == [address]


def test_another_service_is_not_joined(joined, server):
    address = server(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(InputError, match=rf"cluster.address={address}: .*what listens there is not Ray"):
        connect(ClusterConfig(address=address))
    assert not joined


def test_a_service_that_says_nothing_is_not_joined(joined, server, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_ANSWER_SECONDS", 0.2)
    with pytest.raises(InputError, match="timed out"):
        connect(ClusterConfig(address=server(b"")))
    assert not joined

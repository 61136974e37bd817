"""Joining a cluster: another server at the address is reported at once. tests/jobs/bad_input has closed ports."""

import os
import socket
import threading

import pytest
import ray

from configs.loading import load_config
from configs.schema import ClusterConfig
from contracts.errors import InputError
from distributed.ray import cluster as ray_cluster
from distributed.ray.cluster import connect, wait_for_room

SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.fixture
def joined(monkeypatch):
    """The addresses that Ray was told to join; no cluster is really joined."""
    addresses = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **_: addresses.append(address))
    return addresses


@pytest.fixture
def server():
    """A function that starts a server, sends some bytes to its first client, and returns the server's address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def answer(message):
            connection, _ = listener.accept()
            held.append(connection)
            connection.sendall(message)

        def start(message):
            threading.Thread(target=answer, args=(message,), daemon=True).start()
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


@pytest.fixture
def no_token(monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that monkeypatch also undoes what the test sets
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_token")
def test_a_local_cluster_has_a_token_where_the_home_folder_cannot_keep_one(tmp_path, joined, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    connect(ClusterConfig())
    assert "RAY_AUTH_TOKEN" not in os.environ
    monkeypatch.setenv("HOME", "/proc/none")
    connect(ClusterConfig())
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert joined == ["local", "local"]


@pytest.mark.usefixtures("no_token", "joined")
@pytest.mark.parametrize(("name", "value"), [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN_PATH", "/a/token")])
def test_a_stated_authentication_is_left_alone(monkeypatch, name, value):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setenv(name, value)
    connect(ClusterConfig())
    assert os.environ[name] == value
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_another_service_is_not_joined(joined, server):
    address = server(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(InputError, match=rf"cluster.address={address}: .*the server there is not Ray"):
        connect(ClusterConfig(address=address))
    assert not joined


def test_a_service_that_says_nothing_is_not_joined(joined, server, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_ANSWER_SECONDS", 0.2)
    with pytest.raises(InputError, match="timed out"):
        connect(ClusterConfig(address=server(b"")))
    assert not joined


class Cluster:
    """A cluster whose nodes join at given times, with a clock of its own."""

    def __init__(self, *joins):
        self._joins, self.now = joins, 0.0

    def nodes(self):
        return [
            {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}
            for after, alive, cpus, gpus in self._joins
            if self.now >= after
        ]

    def sleep(self, seconds):
        self.now += seconds

    def wait(self, *settings):
        cluster = load_config(None, [f"cluster.{setting}" for setting in settings]).cluster
        wait_for_room(cluster, self.nodes, lambda: self.now, self.sleep)


def test_workers_wait_for_nodes_that_join_and_say_so_once_a_minute(capsys):
    cluster = Cluster((0, True, 1, 0), (150, True, 2, 0))
    cluster.wait("num_workers=3")
    assert cluster.now == 150
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert said[0] == "the cluster has room for 1 of 3 workers; waiting for more nodes, 300 s at most (Ctrl-C ends)"
    cluster.wait("num_workers=[2, 9]")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["num_workers=4"], r"num_workers=4: the cluster has room for 3 of 4 workers, of 1 CPUs each, after 300 s"),
        (["num_workers=3", "cpus_per_worker=2"], r"room for 1 of 3 workers, of 2 CPUs each"),
        (["num_workers=2", "use_gpu=true"], r"room for 1 of 2 workers, of 1 CPUs and a GPU each"),
    ],
)
def test_a_cluster_that_stays_too_small_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Cluster((0, True, 3, 1), (0, False, 64, 8)).wait(*settings)

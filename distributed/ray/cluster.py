"""Starts Ray on this machine or joins a cluster, and waits until the cluster has room for the workers."""

from __future__ import annotations

import logging
import os
import secrets
import select
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import services
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from configs.schema import ClusterConfig
from contracts.errors import InputError
from distributed.output import is_verbose
from distributed.ray.own_code import found_on_this_machine, sent_to_the_cluster
from distributed.ray.relay import is_installed, show_own_lines
from distributed.ray.temporary_folder import keep_sockets_short
from distributed.ray.worker_setup import set_up_worker
from distributed.run_location import cpus_here, is_submitted_job, named_address

log = logging.getLogger(__name__)

# Ray's driver cannot work without these two processes. If one is lost, Ray's library waits a minute and then ends the
# driver.
_VITAL = ("gcs_server", "raylet")
_started: dict[str, subprocess.Popen[bytes]] = {}
_ANSWER_SECONDS = 5.0
# Seconds to wait for nodes that join a cluster, and seconds between two lines that report the waiting.
_NODES_SECONDS, _SAY_EVERY = 300.0, 60.0
# The start of an HTTP/2 connection, on which gRPC is built. Each side's first frame is SETTINGS, type 4 (RFC 9113,
# 3.4).
_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS


def connect(cluster: ClusterConfig) -> None:
    """Join the cluster at `cluster.address`, else at RAY_ADDRESS; else start a local cluster for this process.

    Workers import the packages by the same names as this process (`own_code.py`). Under `ray job submit`, Ray puts
    the working dir on the workers' path. On a local cluster, workers get the path of this code. A driver that joins a
    cluster from outside uploads this code.

    Raises:
        InputError: there is no Ray cluster at the address.
    """
    if ray.is_initialized():
        if not is_installed():  # another program has initialised Ray, so its own lines stay visible
            show_own_lines(verbose=True)
        return
    # Not `log_to_driver=False`, because Ray would then not send the lines of this project's workers either.
    quiet = {"logging_level": logging.INFO if is_verbose() else logging.ERROR, "log_to_driver": True}
    setting, address = named_address(cluster)
    if address in (None, "local"):
        environment = {**found_on_this_machine(), "worker_process_setup_hook": set_up_worker}
        keep_sockets_short()
        _provide_token()
        if not is_verbose():
            # Nobody reads the metrics of a Ray that ends with its job, and Ray's processes warn if they cannot send
            # them.
            os.environ.setdefault("RAY_enable_metrics_collection", "0")
        with _own_process_groups():
            # With the dashboard, because Ray Train's own actors query its state service and warn if they cannot.
            ray.init(
                address="local", num_cpus=cpus_here(cluster), include_dashboard=True, runtime_env=environment, **quiet
            )
        show_own_lines(is_verbose())
        return
    environment = {"worker_process_setup_hook": set_up_worker}
    if not is_submitted_job():
        environment |= sent_to_the_cluster()
    try:
        _check_answers(address)
        ray.init(address=address, runtime_env=environment, **quiet)
        show_own_lines(is_verbose())
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{setting}={address}: no Ray cluster could be joined ({' '.join(str(error).split())[:300]}); "
            "start one with `ray start --head`, set RAY_AUTH_MODE alike on both sides, or unset the address to start "
            "a local cluster"
        ) from None


def _provide_token() -> None:
    """Put a token for a local cluster into the environment if Ray cannot save one in the home folder."""
    stated = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if stated or os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return
    kept = Path(os.path.expanduser("~")) / ".ray" / "auth_token"
    if kept.exists():
        return
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=kept.parent):
            pass
    except OSError:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@contextmanager
def _own_process_groups() -> Iterator[None]:
    """Within this context, each process that Ray starts gets its own process group; `wait_for_loss` then watches it.

    Terminals and batch systems send a signal to a whole process group. The signal then reaches only this process,
    which requests a checkpoint, and Ray keeps running until the checkpoint is written. Ray's processes still end with
    this one.
    """
    popen = services.ConsolePopen
    _started.clear()

    def started(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = popen(command, process_group=0, **options)
        if (name := Path(command[0]).name) in _VITAL:
            _started[name] = process
        return process

    services.ConsolePopen = started
    try:
        yield
    finally:
        services.ConsolePopen = popen


def wait_for_loss(seconds: float) -> str | None:
    """Wait for the end of a process that Ray cannot work without.

    This returns at once when such a process ends, because Ray's library would soon end this process without a
    message.

    Returns:
        The name of the process that ended. None if none ended within `seconds`, or this process started none.
    """
    ends: dict[int, str] = {}
    try:
        for name, process in _started.items():
            if process.poll() is not None:
                return name
            ends[os.pidfd_open(process.pid)] = name
        ended, _, _ = select.select(list(ends), [], [], seconds)
        return ends[ended[0]] if ended else None
    finally:
        for descriptor in ends:
            os.close(descriptor)


def cluster_in_words(cluster: ClusterConfig) -> str:
    """Return a line for the user about what `connect` does."""
    setting, address = named_address(cluster)
    if ray.is_initialized():
        return "Ray is running already"
    if address in (None, "local"):
        return "starting Ray on this machine"
    return f"joining the Ray cluster at {setting}={address}"


def _check_answers(address: str) -> None:
    """Raise if no gRPC server listens at an address.

    This is checked first because `ray.init` would wait two minutes and then end this process by SIGTERM.

    Raises:
        OSError: no gRPC server listens there.
        ValueError: the host or port is not valid.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if int(port) > 65535:
        raise ValueError("the largest port is 65535")  # the resolver would take the port modulo 65536
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") not in ("0", ""):
            return
        connection.sendall(_HTTP2_GREETING)
        if connection.makefile("rb").read(len(_SETTINGS))[3:4] != _SETTINGS[3:4]:
            raise ConnectionError("the server there is not Ray; is this another port of the head node?")


def workers_use_gpu(cluster: ClusterConfig) -> bool:
    """Return whether each worker uses a GPU. For "auto", this depends on the GPUs of the connected cluster.

    Raises:
        InputError: `cluster.use_gpu=true` and the cluster has fewer GPUs than workers.
    """
    available = int(ray.cluster_resources().get("GPU", 0))
    if cluster.use_gpu == "auto":
        chosen = available >= cluster.fewest_workers
        if available and not chosen:
            log.warning("cluster has %d GPUs for %d workers: training on CPUs", available, cluster.fewest_workers)
        return chosen
    if cluster.use_gpu and available < cluster.fewest_workers:
        raise InputError(
            f"cluster.use_gpu=true: the cluster has {available} GPUs for {cluster.fewest_workers} workers; "
            "lower cluster.num_workers, add nodes, or set cluster.use_gpu=auto"
        )
    return bool(cluster.use_gpu)


def wait_for_room(
    cluster: ClusterConfig,
    nodes: Callable[[], list[dict[str, Any]]] = ray.nodes,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until the connected cluster has room for the least number of workers, since nodes may still be joining.

    A line reports the waiting once a minute. Without this function, Ray Train would wait for ever and print a
    traceback each minute.

    Args:
        cluster: the settings: how many workers, and their CPUs and GPUs.
        nodes: returns the cluster's nodes, as `ray.nodes` does; tests replace it.
        clock: returns seconds; tests replace it.
        sleep: waits for some seconds; tests replace it.

    Raises:
        InputError: there is no room after `_NODES_SECONDS`.
    """
    began = said = clock()
    gpus = 1 if cluster.use_gpu is True else 0
    while (room := sum(_workers_on(node, cluster.cpus_per_worker, gpus) for node in nodes())) < cluster.fewest_workers:
        waited = clock() - began
        lacking = f"the cluster has room for {room} of {cluster.fewest_workers} workers"
        if waited >= _NODES_SECONDS:
            raise InputError(
                f"cluster.num_workers={cluster.num_workers}: {lacking}, of {cluster.cpus_per_worker:g} CPUs"
                f"{' and a GPU' if gpus else ''} each, after {waited:.0f} s; lower cluster.num_workers or "
                f"cluster.cpus_per_worker, add nodes, or accept fewer workers with cluster.num_workers=[1, "
                f"{cluster.most_workers}]"
            )
        if waited == 0 or clock() - said >= _SAY_EVERY:
            said = clock()
            print(f"{lacking}; waiting for more nodes, {_NODES_SECONDS:.0f} s at most (Ctrl-C ends)", flush=True)
        sleep(1.0)


def _workers_on(node: dict[str, Any], cpus: float, gpus: int) -> int:
    """Return how many workers fit on an otherwise unused node."""
    if not node["Alive"]:
        return 0
    resources = node["Resources"]
    fitting = int(resources.get("CPU", 0) / cpus)
    return min(fitting, int(resources.get("GPU", 0))) if gpus else fitting


def check_seen_by_all_nodes(folder: Path, what: str) -> None:
    """Raise if a node of the connected cluster does not see a folder, which tasks use to exchange files.

    A cluster of one node is not checked.

    Args:
        folder: the folder.
        what: the name of the folder's setting and its value, for the message.

    Raises:
        InputError: the folder cannot be written, or a node does not see it.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    parent = folder.parent
    probe = parent / f".{folder.name}.{uuid.uuid4().hex}.probe"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as error:
        raise InputError(f"{what}: cannot be written ({error.strerror}); name another folder") from None
    try:
        asked = [_sees.options(scheduling_strategy=_on(node)).remote(str(probe)) for node in nodes]
        blind = [node["NodeManagerAddress"] for node, seen in zip(nodes, ray.get(asked), strict=True) if not seen]
    finally:
        probe.unlink(missing_ok=True)
    if blind:
        raise InputError(
            f"{what}: is not seen by {len(blind)} of {len(nodes)} nodes (first {blind[0]}); use storage that all nodes "
            "mount under the same path, or a cluster of one node"
        )


def _on(node: dict[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)


@ray.remote(num_cpus=0)
def _sees(path: str) -> bool:
    return os.path.exists(path)

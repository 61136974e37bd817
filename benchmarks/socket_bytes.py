"""Bytes that this process has sent to other ranks, from the kernel's own count of each TCP connection (Linux).

Unlike the counters of a network interface these see neither other processes nor Ray's connections, and no headers: a
connection counts if its far end belongs to another rank.
"""

from __future__ import annotations

import os
import socket
import struct
import zlib

import torch
import torch.distributed as dist

_BYTES_SENT = 200  # offset of tcpi_bytes_sent in struct tcp_info (Linux 4.19 and later), retransmissions included
_MOST_CONNECTIONS = 1024


class RankConnections:
    """The connections between this rank and others; making it is a collective."""

    def __init__(self) -> None:
        ends = _connections()
        local = torch.zeros(_MOST_CONNECTIONS, dtype=torch.int64)
        own = [key for key, _ in ends.values()]
        local[: len(own)] = torch.tensor(own)
        everyone = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, local)
        others = {int(key) for rank, keys in enumerate(everyone) if rank != dist.get_rank() for key in keys}
        self._descriptors = [number for number, (_, far) in ends.items() if far in others]

    def bytes_sent(self) -> int:
        """So far, by this rank to all others."""
        return sum(_sent(number) for number in self._descriptors)


def _connections() -> dict[int, tuple[int, int]]:
    """Per descriptor of an open TCP connection a hash of its near and of its far end."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
                    found[int(name)] = (_key(connection.getsockname()), _key(connection.getpeername()))
        except OSError:  # not a socket, listening, or closed meanwhile
            continue
    return found


def _key(end: tuple[str, int]) -> int:
    return zlib.crc32(f"{end[0]} {end[1]}".encode()) + 1


def _sent(number: int) -> int:
    with socket.socket(fileno=os.dup(number)) as connection:
        information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_SENT + 8)
    return int(struct.unpack_from("<Q", information, _BYTES_SENT)[0])

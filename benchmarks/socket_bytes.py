"""Count the bytes that this process has sent to other ranks, from Linux's counters of each TCP connection.

A connection counts if its other end belongs to another rank. So, unlike the counters of a network interface, the
result includes neither other processes, nor Ray's connections, nor headers.
"""

from __future__ import annotations

import os
import socket
import struct
import zlib

import torch
import torch.distributed as dist

# Offset of two counters of eight bytes in struct tcp_info (Linux 4.19 and later): tcpi_bytes_sent, which includes what
# was sent again, and tcpi_bytes_retrans, which is that part of it. A busy machine sends again.
_BYTES_SENT = 200
_MOST_CONNECTIONS = 1024


class RankConnections:
    """The TCP connections between this rank and others. Creating this object is a collective operation."""

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
        """Return the bytes that this rank has sent to all others so far."""
        return sum(_sent(number) for number in self._descriptors)


def _connections() -> dict[int, tuple[int, int]]:
    """Return, for each descriptor of an open TCP connection, a hash of its own and a hash of its other end."""
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
        information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_SENT + 16)
    sent, again = struct.unpack_from("<QQ", information, _BYTES_SENT)
    return int(sent - again)

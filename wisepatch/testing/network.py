"""Refuse the network, as if there were none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


@contextmanager
def refused_network() -> Iterator[None]:
    """Refuse connections to other machines within this context, as if there were no network."""

    def refuse(*_arguments: Any, **_named: Any) -> Any:
        raise OSError("the network is refused during this check")

    def connect(self: socket.socket, address: Any) -> Any:
        return connect_locally(self, address) if self.family == getattr(socket, "AF_UNIX", None) else refuse()

    connect_locally = socket.socket.connect
    without_names = mock.patch.object(socket, "getaddrinfo", refuse)
    with without_names, mock.patch.multiple(socket.socket, connect=connect, connect_ex=connect):
        yield

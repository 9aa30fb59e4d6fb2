"""Fixtures of the reliability tests: a real server behind a fault proxy, a fake one, clients and scripts that are closed."""

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faults import FaultProxy

from oompa import Client

from .fake_server import FakeServer
from .harness import QUICK, Script, Service, client_threads, serious, strays


@pytest.fixture(autouse=True)
def nothing_is_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which client or server log an error: faults of the network are warnings at most."""
    caplog.set_level(logging.WARNING, "oompa")
    strays.update(client_threads())
    yield
    assert serious(caplog) == []


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(ping_interval=None)
    yield service
    service.close()


@pytest.fixture
def proxy(service: Service) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", service.port) as proxy:
        yield proxy


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Make clients as `QUICK` says, unless told otherwise; close them after the test."""
    clients: list[Client] = []

    def make(port: int, **options: Any) -> Client:
        clients.append(Client(f"ws://127.0.0.1:{port}", **{**QUICK, **options}))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    scripts: list[Script] = []

    def start(code: str, port: int) -> Script:
        scripts.append(Script(code, port))
        return scripts[-1]

    yield start
    for running in scripts:
        running.close()


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Let threads take turns a hundred times as often, so that races are met."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(interval / 100)
    yield
    sys.setswitchinterval(interval)

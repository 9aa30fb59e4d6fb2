"""The numbers in examples/deploy agree with one another and with the defaults in the code."""

import configparser
import pathlib
import re

import pytest

from oompa import gunicorn as configuration
from oompa.server.options import SERVER_OPTIONS
from oompa.server.web import RETRY_AFTER
from oompa.server.workers import STOPPING

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples" / "deploy"


def default(option):
    return SERVER_OPTIONS[option].default


def read(name):
    """A file without its comments."""
    return re.sub(r"(?m)(^|\s)#.*$", "", (EXAMPLES / name).read_text())


def numbers(name, pattern):
    """All numbers that a pattern captures; there must be one."""
    found = [int(number) for number in re.findall(pattern, read(name))]
    assert found, f"nothing like {pattern} in {name}"
    return found


def test_gunicorn_has_time_for_a_drain():
    assert configuration.graceful_timeout > default("drain_timeout") + default("close_timeout")


@pytest.mark.parametrize(
    "name, pattern",
    [
        ("nginx.conf", r"proxy_(?:read|send)_timeout (\d+)s;"),
        ("haproxy.cfg", r"timeout (?:client|server|tunnel) +(\d+)s"),
    ],
)
def test_proxy_is_more_patient_than_the_pings(name, pattern):
    silence = 2 * default("ping_interval") + default("close_timeout")
    assert all(number > silence for number in numbers(name, pattern))


def test_nginx_tries_a_server_again_when_a_client_may():
    assert set(numbers("nginx.conf", r"fail_timeout=(\d+)s;")) == {RETRY_AFTER}


def test_proxies_ask_the_other_server_after_what_a_drain_answers():
    assert "http_503" in re.search(r"proxy_next_upstream (.*);", read("nginx.conf")).group(1)
    assert "503" in re.search(r"retry-on (.*)", read("haproxy.cfg")).group(1).split()


def test_proxies_know_the_ports_of_the_readme():
    readme = read("README.md")
    for name in ("nginx.conf", "haproxy.cfg"):
        assert numbers(name, r"server .*127\.0\.0\.1:(\d+)") == [8001, 8002]
    assert "127.0.0.1:8001" in readme and "server.run(8002)" in readme


@pytest.mark.parametrize("name, paths", [("haproxy.cfg", ["ready_path"]), ("kubernetes.yaml", ["ready_path", "health_path"])])
def test_probes_ask_where_it_is_told(name, paths):
    assert re.findall(r"(?:GET|path:) (/\w+)", read(name)) == [default(path) for path in paths]


def test_systemd_waits_for_gunicorn():
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string(read("oompa.service"))
    service = unit["Service"]
    assert int(service["TimeoutStopSec"]) > configuration.graceful_timeout
    assert service["KillMode"] == "mixed"  # systemd tells the master, the master its workers
    assert "-c python:oompa.gunicorn" in service["ExecStart"]


def test_kubernetes_waits_for_gunicorn():
    (grace,) = numbers("kubernetes.yaml", r"terminationGracePeriodSeconds: (\d+)")
    (pause,) = numbers("kubernetes.yaml", r'\[sleep, "(\d+)"\]')
    (readiness, liveness) = numbers("kubernetes.yaml", r"periodSeconds: (\d+)")
    (unready, dead) = numbers("kubernetes.yaml", r"failureThreshold: (\d+)")
    assert grace > pause + configuration.graceful_timeout
    assert readiness * unready <= pause  # by then nobody sends new connections here
    assert liveness * dead > configuration.graceful_timeout  # a pod that drains is not dead
    assert "python:oompa.gunicorn" in read("kubernetes.yaml")


def test_readme_tells_the_numbers_of_the_code():
    rows = dict(re.findall(r"\| (?:\+ )?(\d+) \| `?(\w+|gunicorn's own end)`?", read("README.md")))
    assert rows["30"] == "drain_timeout" and default("drain_timeout") == 30.0
    assert rows["2"] == "close_timeout" and default("close_timeout") == 2.0
    assert f"`graceful_timeout` is {configuration.graceful_timeout}," in read("README.md")
    assert f"{numbers('oompa.service', r'TimeoutStopSec=([0-9]+)')[0]}" in rows
    assert f"{numbers('kubernetes.yaml', r'terminationGracePeriodSeconds: ([0-9]+)')[0]}" in rows
    assert f"takes {configuration.threads} threads" in read("README.md")
    assert f"so tasks have {30 - default('close_timeout') - STOPPING:.0f} seconds there" in read("README.md")
    assert f"every {default('ping_interval'):.0f} seconds" in read("README.md")

"""Listening on a path: the file comes, goes, and is taken over from a server that was killed, and from nobody else."""

import os
import socket
import stat
import subprocess
import sys

import pytest
from conftest import CALCULATOR, CEILING

from oompa import Client, Server
from oompa.server.sockets import SocketFile


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "app.sock")


@pytest.fixture
def server():
    server = Server(CALCULATOR)
    yield server
    server.close(timeout=0.2).result(CEILING)


def add(path):
    with Client(f"ws+unix:{path}") as client:
        return client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING)


def health_of(path):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(CEILING)
        peer.connect(path)
        peer.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := peer.recv(4096):
            answer += data
    return answer.split(b"\r\n")[0], answer.rpartition(b"\r\n")[2]


def test_a_server_listens_on_a_path_and_its_file_goes_when_it_closes(server, path):
    server.listen(path=path).result(CEILING)
    assert stat.S_ISSOCK(os.stat(path).st_mode) and server.port is None
    assert add(path) == 7
    assert health_of(path) == (b"HTTP/1.1 200 OK", b"ok")
    server.close().result(CEILING)
    assert not os.path.lexists(path)
    server.listen(path=path).result(CEILING)
    assert add(path) == 7


def test_the_file_of_a_server_that_was_killed_is_replaced(server, path):
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
        killed.listen()
    assert os.path.exists(path)
    server.listen(path=path).result(CEILING)
    assert add(path) == 7


def test_a_server_that_lives_keeps_its_file(server, path):
    server.listen(path=path).result(CEILING)
    other = Server(CALCULATOR)
    with pytest.raises(OSError, match=f"cannot listen on {path}: a server listens there already"):
        other.listen(path=path).result(CEILING)
    other.close().result(CEILING)
    assert add(path) == 7


def test_a_file_that_is_no_socket_is_left_alone(server, path):
    with open(path, "w") as file:
        file.write("precious")
    with pytest.raises(OSError, match="a file that is no socket"):
        server.listen(path=path).result(CEILING)
    with open(path) as file:
        assert file.read() == "precious"


@pytest.mark.parametrize("name", ["no/such/directory.sock", "x" * 200])
def test_a_path_that_cannot_be_is_an_oserror_that_names_it(server, tmp_path, name):
    with pytest.raises(OSError, match="cannot listen on .*" + name[-20:]):
        server.listen(path=str(tmp_path / name)).result(CEILING)


def test_a_server_takes_no_file_away_that_another_has_made_meanwhile(path):
    first = SocketFile(path)
    os.unlink(path)
    second = SocketFile(path)
    try:
        first.remove()
        assert os.path.exists(path)
        second.remove()
        second.remove()
        assert not os.path.exists(path)
    finally:
        first.listening.close()
        second.listening.close()


FORKS = """
import os, sys
from oompa import Client, Server
server = Server({"ONE": lambda _: 1})
server.listen(path=sys.argv[1]).result(10)
child = os.fork()
if child == 0:
    server._embedded._file.remove()
    os._exit(0)
os.waitpid(child, 0)
with Client(f"ws+unix:{sys.argv[1]}") as client:
    print(client.call("ONE", timeout=10))
server.close().result(10)
print(os.path.lexists(sys.argv[1]))
"""


def test_a_fork_leaves_the_file_to_its_parent(path):
    """Case 18."""
    command = [sys.executable, "-W", "ignore", "-c", FORKS, path]
    done = subprocess.run(command, capture_output=True, timeout=60, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\nFalse\n", "")


def test_listen_needs_a_port_or_a_path_and_not_both(server, path):
    for arguments in ({}, {"port": 0, "path": path}):
        with pytest.raises(TypeError, match='listen needs a port, such as listen.9000., or a path'):
            server.listen(**arguments)
    server.listen(path=path).result(CEILING)
    with pytest.raises(RuntimeError, match=f"the server listens already, on unix://{path}"):
        server.listen(0)


RUNS = """
import signal, sys, threading
from oompa import Client, Server
server = Server({"ONE": lambda _: 1})

def stop():
    with Client(f"ws+unix:{sys.argv[1]}", reconnect_interval=0.05) as client:
        print(client.call("ONE", timeout=10))
    signal.raise_signal(signal.SIGTERM)

threading.Thread(target=stop).start()
server.run(path=sys.argv[1])
"""


def test_run_serves_a_path_until_it_is_told_to_stop(path):
    done = subprocess.run([sys.executable, "-c", RUNS, path], capture_output=True, timeout=60, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert not os.path.lexists(path)

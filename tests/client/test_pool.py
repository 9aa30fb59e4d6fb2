"""A pool, with real servers: whatever carries a call, it comes back as from one client."""

import inspect
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import CEILING, wait_until
from deployed import deployed
from ports import reserved_port

from oompa import Client, ClientClosed, ConnectionLost, Pool
from oompa.client import shares

CALCULATOR = ("-m", "examples.calculator", "{port}")


#: Seconds to wait for other processes, as it is outside these tests, where mostly there are none.
PAUSES = shares.PAUSES


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Other processes are looked for without pauses."""
    monkeypatch.setattr(shares, "PAUSES", (0.0,) * len(PAUSES))


@pytest.fixture
def pooled():
    """Make pools: ``pooled(servers_or_urls, methods, **options)``; closed after the test."""
    pools = []

    def make(servers, methods=None, **options):
        urls = [url_of(server) for server in servers] if isinstance(servers, tuple) else servers
        pools.append(Pool(urls, methods, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def named(name):
    return {"NAME": lambda payload: name}


def url_of(server):
    return f"ws://127.0.0.1:{server.port}"


def all_connected(pool):
    """Wait until every connection of a pool is there."""
    wait_until(lambda: "{0} of {0} connected".format(len(pool._link._links)) in repr(pool))
    return pool


@pytest.fixture
def nowhere():
    """A URL that nobody listens at."""
    with reserved_port() as port:
        yield f"ws://127.0.0.1:{port}"


@pytest.fixture
def held(serve):
    """A server whose task WAIT comes back when the event is set."""
    going_on = threading.Event()
    yield serve({"WAIT": lambda payload: going_on.wait(CEILING)}), going_on
    going_on.set()


# What it takes.


@pytest.mark.parametrize("urls, size", [("ws://h", None), (lambda: "ws://h", None), ("ws://h", 0), (["ws://h", "ws://i"], 2)])
def test_a_size_that_fits_no_urls_is_refused(urls, size):
    with pytest.raises(ValueError, match="size"):
        Pool(urls, size=size, no_server=True)


@pytest.mark.parametrize("size", [True, 2.0, "2"])
def test_a_size_that_is_no_number_is_refused(size):
    with pytest.raises(TypeError, match="size must be a whole number"):
        Pool("ws://h", size=size, no_server=True)


def test_urls_options_and_methods_are_checked_as_those_of_a_client():
    with pytest.raises(ValueError, match="http"):
        Pool(["ws://h", "http://i"], no_server=True)
    with pytest.raises(ValueError, match="empty"):
        Pool([], no_server=True)
    with pytest.raises(TypeError, match="timeouts"):
        Pool(["ws://h"], timeouts=1.0)
    with pytest.raises(ValueError, match="drain"):
        Pool(["ws://h"], {"drain": {"type": "DRAIN"}})


def test_one_url_in_a_list_is_one_connection_or_as_many_as_are_asked_for(pooled):
    assert len(pooled(["ws://h"], no_server=True)._link._links) == 1
    assert len(pooled(["ws://h"], size=3, no_server=True)._link._links) == 3


def test_its_signature_has_the_size_and_the_options_of_a_client():
    own, client = (list(inspect.signature(each).parameters) for each in (Pool, Client))
    assert own == ["urls", "methods", "size", *client[2:]]


# Which connection carries a call.


def test_a_call_goes_to_the_connection_with_less_pending(held, pooled):
    server, going_on = held
    pool = all_connected(pooled(url_of(server), {"wait": {"type": "WAIT"}}, size=2))
    calls = []
    for i in range(1, 11):
        calls += [pool.wait(1), pool.dispatch("WAIT")]
        assert [len(link) for link in pool._link._links] == [i, i]
    going_on.set()
    assert [call.result(CEILING) for call in calls] == [True] * 20


def test_calls_go_to_every_connection_and_never_to_one_that_is_gone(serve, pooled):
    servers = serve(named("a")), serve(named("b")), serve(named("c"))
    pool = all_connected(pooled(servers))
    assert {pool.call("NAME") for _ in range(200)} == {"a", "b", "c"}
    servers[0].close(timeout=0).result(CEILING)
    assert {pool.call("NAME", timeout=CEILING) for _ in range(200)} == {"b", "c"}


def test_a_call_made_before_there_is_a_connection_waits_for_one(serve, pooled, nowhere):
    pool = pooled([nowhere, url_of(serve(named("b")))])
    assert pool.call("NAME", timeout=CEILING) == "b"


def test_a_refusal_by_one_server_fails_no_call_that_another_takes(serve, pooled):
    closed, opened = serve(named("a"), authenticate=lambda request: False), serve(named("b"))
    pool = pooled((closed, opened))
    assert {pool.call("NAME", timeout=CEILING) for _ in range(50)} == {"b"}


# A server that goes away.


def test_a_list_of_a_client_moves_to_the_other_at_once(serve, connect):
    servers = {name: serve(named(name)) for name in "ab"}
    client = connect([url_of(server) for server in servers.values()], reconnect_interval=3600.0)
    first = client.call("NAME", timeout=CEILING)
    servers.pop(first).close(timeout=0).result(CEILING)
    assert client.call("NAME", timeout=CEILING) == next(iter(servers))


def test_what_is_pending_moves_with_its_connection_at_once(serve, pooled):
    going_on, arrived = threading.Event(), threading.Event()
    a = serve({"NAME": lambda payload: arrived.set() or going_on.wait(CEILING) and "a"})
    pool = pooled((a, serve(named("b"))), reconnect_interval=3600.0)
    wait_until(lambda: len(a.connections) == 1)
    calls = [pool.dispatch("NAME", timeout=CEILING) for _ in range(20)]
    assert arrived.wait(CEILING)
    a.close(timeout=0)
    assert {call.result(CEILING) for call in calls} == {"b"}
    going_on.set()


def test_a_connection_whose_calls_another_server_has_settled_waits_for_its_own(serve, pooled):
    going_on, arrived = threading.Event(), threading.Event()
    a = serve({"NAME": lambda payload: arrived.set() or going_on.wait(CEILING) and "a"})
    b, port = serve(named("b")), a.port
    pool = all_connected(pooled((a, b), timeout=0.5, attempts=100, reconnect_interval=0.01))
    call = pool._link._links[0].dispatch("NAME", None)
    assert arrived.wait(CEILING)
    closed = a.close(timeout=0)
    assert call.result(CEILING) == "b"
    going_on.set()
    closed.result(CEILING)
    wait_until(lambda: "1 of 2 connected" in repr(pool))
    assert {pool.call("NAME", timeout=CEILING) for _ in range(20)} == {"b"}
    back = serve(named("a"), port=port)
    all_connected(pool)
    wait_until(lambda: (len(back.connections), len(b.connections)) == (1, 1))
    assert {pool.call("NAME", timeout=CEILING) for _ in range(100)} == {"a", "b"}


def test_servers_that_are_killed_under_load_cost_no_call(pooled):
    """Each is killed in turn, and comes back before the other one goes."""
    done = threading.Event()

    def load(pool, number):
        count = 0
        while not done.is_set():
            assert pool.call("ADD", {"x": count, "y": number}, timeout=CEILING) == count + number
            assert pool.dispatch("ECHO", count).result(CEILING) == count
            count += 1
        return count

    with deployed(*CALCULATOR) as a, deployed(*CALCULATOR) as b, ThreadPoolExecutor(4) as threads:
        pool = all_connected(pooled((a, b)))
        loads = [threads.submit(load, pool, number) for number in range(4)]
        try:
            a.process.send_signal(signal.SIGKILL)
            a.process.wait(CEILING)
            assert pool.call("ADD", {"x": 1, "y": 2}, timeout=CEILING) == 3
            with deployed(*CALCULATOR, port=a.port):
                b.process.send_signal(signal.SIGKILL)
                b.process.wait(CEILING)
                assert pool.call("ADD", {"x": 1, "y": 2}, timeout=CEILING) == 3
                done.set()
                assert all(load.result(CEILING) > 0 for load in loads)
        finally:
            done.set()


# Processes that share a port.


@pytest.mark.parametrize(
    "processes, tries, options",
    [("aaaaab", 6, {}), ("a" * 99, 12, {}), ("a" * 99, 0, {"introspection": False})],
    ids=["the other is found", "there is no other", "the server does not tell"],
)
def test_connections_that_come_to_one_process_try_again(serve, pooled, monkeypatch, processes, tries, options):
    told = []

    def next_process(introspection):
        told.append(processes[len(told)])
        return told[-1]

    monkeypatch.setattr("oompa.server.introspection.Introspection.id", property(next_process))
    server = serve(**options)
    pool = all_connected(pooled(url_of(server), size=2))
    wait_until(lambda: len(server.connections) == 2)
    assert len(told) == tries
    assert pool.call("ADD", {"x": 1, "y": 2}) == 3


def test_the_processes_of_gunicorn_all_get_calls(pooled, monkeypatch):
    """Also those that start after the first one answers."""
    monkeypatch.setattr(shares, "PAUSES", PAUSES)
    bare = ("-m", "gunicorn", "-w", "2", "--threads", "32", "-b", "127.0.0.1:{port}", "examples.calculator:server")
    with deployed(*bare) as server:
        pool = pooled(url_of(server), size=8)
        wait_until(lambda: len({pool.call("$OOMPA/INFO")["id"] for _ in range(20)}) == 2)


# All that a client has.


def test_middleware_and_options_of_a_call_are_those_of_a_client(serve, pooled):
    seen = []
    server = serve({"META": lambda payload: seen.append(payload) or "done"})
    server.use(lambda request, call_next: (request.meta, call_next(request)))
    pool = pooled(url_of(server), size=2)

    @pool.use
    def stamp(request, call_next):
        request.meta["stamp"] = 1
        return call_next(request)

    [meta, result] = pool.call("META", 1, 5.0, {"own": True}, key="k", resend=False)
    assert (meta, result) == ({"stamp": 1, "own": True, "key": "k", "timeout": 5.0}, "done")
    assert pool.dispatch("META", 2, on_progress=print).result(CEILING)[0]["progress"] is True
    assert pool.ping().result(CEILING) is True


def test_once_is_once_whichever_connection_it_is(serve, pooled):
    server = serve(introspection=False)  # or the pool looks for other processes meanwhile
    lost, once = [], []
    pool = all_connected(pooled(url_of(server), size=3, reconnect_interval=0.01))
    wait_until(lambda: len(server.connections) == 3)
    pool.on("host-closed", lambda: lost.append(1)).once("host-closed", lambda: once.append(1))
    for connection in server.connections:
        connection.close()
    wait_until(lambda: len(lost) == 3 and once)
    pool.off("host-closed")
    all_connected(pool)
    pool.close()  # which runs what is left for the listeners
    assert (len(lost), once) == (3, [1])


def test_it_is_connected_when_one_of_its_connections_is(serve, pooled, nowhere):
    server = serve()
    pool = pooled([nowhere, url_of(server)], no_server=True)
    assert not pool.is_connected
    pool.start()
    pool.wait_connected(CEILING)
    assert pool.is_connected


def test_waiting_for_a_connection_in_vain_raises_the_reason(serve, pooled, nowhere):
    with pytest.raises(ConnectionLost, match="refused"):
        pooled([nowhere, nowhere]).wait_connected(0.1)
    closed = url_of(serve(authenticate=lambda request: False))
    with pytest.raises(ConnectionLost, match="401"):
        pooled(closed, size=2).wait_connected(None)
    pool = pooled(nowhere, size=2)
    pool.close()
    with pytest.raises(ClientClosed):
        pool.wait_connected(CEILING)


def test_draining_waits_for_what_is_pending_on_every_connection(held, pooled):
    server, going_on = held
    pool = all_connected(pooled(url_of(server), size=2))
    calls = [pool.dispatch("WAIT") for _ in range(6)]
    with ThreadPoolExecutor(1) as threads:
        drained = threads.submit(pool.drain)
        wait_until(lambda: refuses(pool))
        assert not drained.done()
        going_on.set()
        assert drained.result(CEILING) is True
    assert [call.result(0) for call in calls] == [True] * 6


def test_draining_ends_with_its_timeout(held, pooled):
    server, _ = held
    pool = all_connected(pooled(url_of(server), size=2))
    calls = [pool.dispatch("WAIT") for _ in range(4)]
    assert pool.drain(0.05) is False
    for call in calls:
        with pytest.raises(ClientClosed):
            call.result(0)


def refuses(pool):
    try:
        pool.dispatch("WAIT")
    except ClientClosed:
        return True
    return False


def test_closing_fails_what_is_pending_and_takes_no_more(held, pooled):
    server, going_on = held
    with pooled(url_of(server), size=2) as pool:
        all_connected(pool)
        calls = [pool.dispatch("WAIT") for _ in range(4)]
    for call in calls:
        assert isinstance(call.exception(0), ClientClosed)
    with pytest.raises(ClientClosed):
        pool.call("WAIT")
    going_on.set()
    wait_until(lambda: not server.connections)


def test_the_repr_of_a_pool_tells_where_it_leads_and_how_it_is(held, pooled):
    server, going_on = held
    pool = pooled(url_of(server), size=2, no_server=True)
    assert repr(pool) == f"<Pool to ws://127.0.0.1:{server.port}, not started, 0 pending>"
    pool.start()
    all_connected(pool)
    call = pool.dispatch("WAIT")
    assert repr(pool) == f"<Pool to ws://127.0.0.1:{server.port}, 2 of 2 connected, 1 pending>"
    going_on.set()
    assert call.result(CEILING)
    pool.close()
    assert repr(pool) == f"<Pool to ws://127.0.0.1:{server.port}, closed, 0 pending>"


@pytest.mark.oompa_leaves_open
def test_a_pool_that_nobody_holds_any_more_ends(serve):
    server = serve()
    pool = all_connected(Pool(url_of(server), size=2))
    call = pool.dispatch("ADD", {"x": 1, "y": 2})
    del pool
    assert call.result(CEILING) == 3
    del call
    wait_until(lambda: not server.connections)

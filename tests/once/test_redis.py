"""The store in Redis, beyond what every store does."""

import needs
import pytest
from redis_server import redis_running
from test_middleware import Task, request_of

from oompa import Once, TaskError
from oompa.once import RedisStore, check_store


@pytest.fixture(scope="module")
def path():
    """Of the socket of a Redis."""
    with redis_running() as path:
        yield path


@pytest.fixture
def client(path):
    """A client of it."""
    with needs.package("redis").Redis(unix_socket_path=path) as client:
        client.flushall()
        yield client


def test_redis_does_what_a_store_must(client):
    check_store(lambda: RedisStore(client))


def test_a_client_that_decodes_does_for_what_once_writes(path):
    with needs.package("redis").Redis(unix_socket_path=path, decode_responses=True) as client:
        client.flushall()
        first, second = Once(store=RedisStore(client)), Once(store=RedisStore(client))
        task = Task({"name": "ü€"}, "again")
        assert first(request_of(), task) == second(request_of(), task) == {"name": "ü€"}
        (key,) = client.keys("oompa:once:*")
        assert client.get(key).endswith('{"name":"ü€"}')


def test_stores_of_two_prefixes_have_nothing_in_common(client):
    store, other = RedisStore(client), RedisStore(client, prefix="shop:")
    assert store.swap("a", None, b"1", 60.0) and other.get("a") is None
    assert other.swap("a", None, b"2", 60.0)
    assert sorted(client.keys("*")) == [b"oompa:once:a", b"shop:a"]
    assert repr(other) == "<RedisStore 'shop:'>"


def test_values_go_by_the_clock_of_redis(client):
    store = RedisStore(client)
    store.swap("a", None, b"1", 600.0)
    assert 0 < client.pttl("oompa:once:a") <= 600_000
    store.swap("a", b"1", b"2", 1e-9)
    assert store.get("a") in (b"2", None), "a moment, but some time"


def test_scripts_that_redis_has_forgotten_are_sent_again(client):
    store = RedisStore(client)
    store.swap("a", None, b"1", 60.0)
    client.script_flush()
    assert store.swap("a", b"1", b"2", 60.0)


def test_nothing_runs_without_redis():
    redis = needs.package("redis")
    at_once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    with redis_running() as path, redis.Redis(unix_socket_path=path, retry=at_once) as client:
        once, task = Once(store=RedisStore(client)), Task(1)
        assert once(request_of(), task) == 1
    with pytest.raises(TaskError, match="cannot be reached") as refused:
        once(request_of(id="2"), task)
    assert (refused.value.code, refused.value.retry_after, task.runs) == ("unavailable", 1.0, 1)


@pytest.mark.parametrize("kind", ["a URL", "asyncio"])
def test_what_is_no_client_is_refused(kind):
    wrong = "redis://localhost" if kind == "a URL" else needs.package("redis.asyncio").Redis()
    with pytest.raises(TypeError, match=r"redis must be a client such as redis.Redis\(host='localhost'\), not "):
        RedisStore(wrong)

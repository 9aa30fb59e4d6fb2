"""What users hand over to be called is refused where it can never be called so."""

import functools
from unittest import mock

import pytest

from oompa import Client, Schema, Server
from oompa.callables import checked, checked_with
from oompa.emitter import Listenable


class Callables:
    """The kinds of callables that take one argument, by their name."""

    def method(self, value):
        return value

    @classmethod
    def class_method(cls, value):
        return value

    @staticmethod
    def static_method(value):
        return value

    def __call__(self, value):
        return value


def injected(function):
    """A decorator that brings an argument, as those for a database session do."""

    @functools.wraps(function)
    def wrapper(*arguments):
        return function("a session", *arguments)

    return wrapper


@injected
def with_session(session, value):
    return value


ONE = [lambda value: value, lambda value, more=1: value, lambda *values: values, Callables().method, Callables.class_method,
       Callables.static_method, Callables(), functools.partial(lambda kind, value: value, 1), len, str, [].append, print,
       with_session, mock.Mock()]

OTHERS = [lambda: None, lambda one, two: None, lambda value, *, key: None, Callables.method, functools.partial(len, []),
          lambda *, value: None]


@pytest.mark.parametrize("function", ONE)
def test_what_takes_the_argument_is_taken_as_it_is(function):
    assert checked_with("it", function, "value") is function


@pytest.mark.parametrize("function", OTHERS)
def test_what_takes_other_arguments_is_refused_with_both_forms(function):
    """Case 57."""
    with pytest.raises(TypeError, match=r"^it must take \(value\), but .* takes \("):
        checked_with("it", function, "value")
    assert checked("it", function) is function


def test_what_cannot_be_called_is_refused():
    """Case 57."""
    for check in (checked, checked_with):
        with pytest.raises(TypeError, match="^it must be callable, not 5$"):
            check("it", 5)


# Wherever something is handed over.


@pytest.mark.parametrize("healthcheck", [lambda request: True, Callables().method, lambda *, deep: True])
def test_a_healthcheck_that_needs_an_argument_is_refused_when_the_server_is_made(healthcheck):
    """Case 57: it failed at each question, and so the server was unhealthy for ever."""
    with pytest.raises(TypeError, match=r"^the healthcheck must take \(\), but .* takes \("):
        Server({}, healthcheck)


@pytest.mark.parametrize("healthcheck", [lambda deep=False: True, lambda *anything: True, Callables, mock.Mock()])
def test_a_healthcheck_that_may_have_arguments_is_taken(healthcheck):
    Server({}, healthcheck)


@pytest.mark.parametrize(
    "options, form",
    [
        ({"url": lambda attempt: "ws://localhost:1"}, r"url must take \(\)"),
        ({"headers": lambda url: {}}, r"headers must take \(\)"),
        ({"default": lambda: None}, r"default must take \(value\)"),
    ],
)
def test_what_a_client_asks_or_calls_is_looked_at_when_it_is_made(options, form):
    """Case 57."""
    with pytest.raises(TypeError, match=f"^{form}, but "):
        Client(**{"url": "ws://localhost:1", "no_server": True, **options})


def test_a_clients_middleware_takes_two_as_the_servers_does():
    """Case 57."""
    for facade in (Server({}), Client("ws://localhost:1", no_server=True)):
        with pytest.raises(TypeError, match=r"^a middleware must take \(request, call_next\), but "):
            facade.use(lambda request: None)


@pytest.mark.parametrize("make", [lambda: Server({}), lambda: Client("ws://localhost:1", no_server=True)])
def test_a_middleware_that_forgets_to_return_is_refused_at_both_ends(make):
    """Case 57."""

    def forgetful(request, call_next):
        call_next(request)

    with pytest.raises(TypeError, match=r"^a middleware must return a result, and .* never does: return call_next\(request\)$"):
        make().use(forgetful)


@pytest.mark.parametrize("function", [lambda x, /: x, lambda x, /, y=1: x, abs, functools.partial(lambda x, y, /: x, 1)])
def test_a_task_that_needs_arguments_by_position_is_refused(function):
    """Case 57: the payload's keys are keyword arguments; each call would fail."""
    with pytest.raises(TypeError, match="^the factory of 'ABS' gets the payload's keys as keyword arguments, but "):
        Schema().add("ABS", function)
    with pytest.raises(TypeError, match="by position alone$"):
        Schema().task("ABS")(function)


@pytest.mark.parametrize("function", [lambda x=1, /: x, lambda x: x, lambda *x, **y: x, dict, Callables(), mock.Mock()])
def test_a_task_that_can_be_called_by_keywords_is_taken(function):
    schema = Schema()
    schema.add("A", function)
    assert list(schema) == ["A"]


def listen(facade: Listenable, event, listener):
    facade.on(event, listener)
    facade.off(event, listener)


@pytest.mark.parametrize(
    "event, argument",
    [("connection", "connection"), ("terminated", "connection"), ("error", "exception"), ("reply", "reply"),
     ("stale", "reply")],
)
def test_a_listener_of_a_server_takes_what_its_event_passes(event, argument):
    """Case 57: it raised at each event, into a log."""
    listen(Server({}), event, lambda one: None)
    for wrong in (lambda: None, lambda one, two: None):
        with pytest.raises(TypeError, match=rf"^a listener of '{event}' must take \({argument}\), but "):
            Server({}).on(event, wrong)


@pytest.mark.parametrize(
    "event, argument",
    [("error", "exception"), ("host-closed", ""), ("reconnect-failed", ""), ("reconnected", ""), ("OK:7", "payload"),
     ("ERR:a:b", "error")],
)
def test_a_listener_of_a_client_takes_what_its_event_passes(event, argument):
    """Case 57: it raised at each event, into a log that nobody sees."""
    client = Client("ws://localhost:1", no_server=True)
    listen(client, event, (lambda one: None) if argument else (lambda: None))
    for once in (client.once, client.on):
        with pytest.raises(TypeError, match=rf"^a listener of '{event}' must take \({argument}\), but "):
            once(event, lambda one, two: None)

"""The tree of errors: what is caught by which ``except``, and what each carries."""

import concurrent.futures
import pickle

import pytest

import oompa
from oompa import errors

OWN = [
    errors.ProtocolError("no message"),
    errors.RemoteError({"code": 7}),
    errors.RequestTimeout("too late"),
    errors.ConnectionLost("gone", 1009, 403),
    errors.ClientClosed("closed"),
    errors.TooManyPending("full"),
    errors.HealthcheckFailed("ill"),
]


def name_of(error):
    return type(error).__name__


@pytest.mark.parametrize("error", OWN, ids=name_of)
def test_every_error_of_oompa_is_an_oompa_error(error):
    assert isinstance(error, errors.OompaError)


@pytest.mark.parametrize("error", [*OWN, errors.OompaError(), errors.TaskError(1)], ids=name_of)
def test_every_error_is_an_exception_and_exported_by_the_package(error):
    assert isinstance(error, Exception)
    assert getattr(oompa, name_of(error)) is type(error)


@pytest.mark.parametrize(
    "error",
    [*OWN, errors.TaskError([1]), errors.TaskError("full", code="unavailable", data=[1], retry_after=2)]
    + [errors.RemoteError("full", {"code": "unavailable"})],
    ids=name_of,
)
def test_an_error_survives_pickling_with_its_attributes(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert copy.args == error.args
    assert vars(copy) == vars(error)


def test_no_error_of_oompa_is_a_kind_of_another_one():
    kinds = {type(error) for error in OWN}
    assert [kind for kind in kinds for other in kinds - {kind} if issubclass(kind, other)] == []


def test_request_timeout_is_a_timeout_error_of_both_kinds():
    assert issubclass(errors.RequestTimeout, TimeoutError)
    assert issubclass(errors.RequestTimeout, concurrent.futures.TimeoutError)


def test_connection_lost_is_a_connection_error():
    assert issubclass(errors.ConnectionLost, ConnectionError)


def test_connection_lost_tells_the_close_code_and_the_status_of_a_refusal():
    lost = errors.ConnectionLost("gone", 1009)
    assert (str(lost), lost.code, lost.status) == ("gone", 1009, None)
    refused = errors.ConnectionLost("forbidden", status=403)
    assert (refused.code, refused.status) == (None, 403)


@pytest.mark.parametrize("value", [None, "Error: Zero div", 0, False, [1, {"a": None}], {"code": 7}])
def test_remote_error_carries_the_wire_value(value):
    assert errors.RemoteError(value).error is value


def test_remote_error_reads_as_its_value():
    assert str(errors.RemoteError("ZeroDivisionError: division by zero")) == "ZeroDivisionError: division by zero"


def test_task_error_is_the_handlers_own_and_no_oompa_error():
    assert not issubclass(errors.TaskError, errors.OompaError)


def test_task_error_carries_any_value_and_none_by_default():
    assert errors.TaskError({"code": 7}).error == {"code": 7}
    assert errors.TaskError().error is None


# Codes.


def test_there_are_the_sixteen_codes_of_grpc():
    assert len(errors.CODES) == 16 and "ok" not in errors.CODES


def test_task_error_tells_only_what_is_known():
    assert errors.TaskError("full").details is None
    assert errors.TaskError("full", code="unavailable").details == {"code": "unavailable"}
    told = {"code": "unavailable", "data": [1], "retry_after": 2}
    assert errors.TaskError("full", **told).details == told


@pytest.mark.parametrize("code", ["", "OK", "UNAVAILABLE", "no_such", 14, ["unavailable"]])
def test_a_code_that_does_not_exist_is_a_value_error(code):
    with pytest.raises(ValueError, match="code must be one of aborted, "):
        errors.TaskError("full", code=code)


NO_WAIT = [0, -1, float("nan"), float("inf"), True, "2", [], 10**400]


@pytest.mark.parametrize("seconds", NO_WAIT, ids=lambda value: repr(value)[:10])
def test_a_retry_after_that_is_no_duration_is_a_value_error(seconds):
    with pytest.raises(ValueError, match="retry_after must be a finite number of seconds above 0"):
        errors.TaskError("full", retry_after=seconds)


def test_remote_error_tells_what_the_details_say_and_none_otherwise():
    error = errors.RemoteError("full", {"code": "unavailable", "data": {"a": 1}, "retry_after": 2})
    assert (error.code, error.data, error.retry_after) == ("unavailable", {"a": 1}, 2.0)
    for details in (None, {}, {"code": 7, "retry_after": "soon"}):
        error = errors.RemoteError("full", details)
        assert (error.code, error.data, error.retry_after) == (None, None, None)


@pytest.mark.parametrize("seconds", NO_WAIT, ids=lambda value: repr(value)[:10])
def test_a_retry_after_of_a_server_that_is_no_duration_counts_as_none(seconds):
    assert errors.RemoteError("full", {"retry_after": seconds}).retry_after is None

"""Close codes and what they mean."""

import pytest

from oompa.wire.closing import BLAMING_CODES, CloseCode, check_close

NAMED_CODES = {
    "NORMAL_CLOSURE": 1000,
    "GOING_AWAY": 1001,
    "PROTOCOL_ERROR": 1002,
    "UNSUPPORTED_DATA": 1003,
    "NO_STATUS_RECEIVED": 1005,
    "ABNORMAL_CLOSURE": 1006,
    "INVALID_PAYLOAD_DATA": 1007,
    "POLICY_VIOLATION": 1008,
    "MESSAGE_TOO_BIG": 1009,
    "MANDATORY_EXTENSION": 1010,
    "INTERNAL_ERROR": 1011,
    "SERVICE_RESTART": 1012,
    "TRY_AGAIN_LATER": 1013,
    "BAD_GATEWAY": 1014,
}


@pytest.mark.parametrize("name, code", NAMED_CODES.items())
def test_close_codes_have_the_numbers_of_the_registry(name, code):
    assert CloseCode[name] == code


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009])
def test_a_code_that_names_a_fault_of_what_was_sent_blames_it(code):
    assert code in BLAMING_CODES


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1010, 1011, 1012, 1013, 3000, 4000, 4999])
def test_no_other_code_blames_what_was_sent(code):
    assert code not in BLAMING_CODES


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
def test_what_a_close_frame_carries_passes(code):
    check_close(code, "done")


@pytest.mark.parametrize("code", [0, 999, 1005, 1006, 2999, 5000, 70000, -1])
def test_a_code_that_no_close_frame_carries_is_refused(code):
    with pytest.raises(ValueError, match=str(code)):
        check_close(code, "")


@pytest.mark.parametrize(("code", "reason"), [(1000, None), (1000, b"done"), ("1000", ""), (True, ""), (None, "")])
def test_what_is_no_code_and_no_reason_is_refused(code, reason):
    with pytest.raises(TypeError, match="code and a string"):
        check_close(code, reason)

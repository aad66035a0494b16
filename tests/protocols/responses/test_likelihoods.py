"""How likely tokens were, in the form of the Responses API."""

import pytest

from appliance.model.calls import Delta, LogprobsDelta, TextDelta
from appliance.protocols.responses.asides import NewPart
from appliance.protocols.responses.likelihoods import Likely, logprob_object, paired

A, B = TextDelta("a"), TextDelta("b")
TOKENS = LogprobsDelta([{"token": "a"}])
WITH_A = Likely("a", TOKENS.tokens)


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([], []),
        ([A], [A]),
        ([A, B], [A, B]),
        ([A, TOKENS, B], [WITH_A, B]),
        ([B, A, TOKENS], [B, WITH_A]),
        ([TOKENS, A], [TOKENS, A]),
        ([A, TOKENS, TOKENS], [WITH_A, TOKENS]),
        ([A, NewPart(), B], [A, NewPart(), B]),
    ],
)
def test_text_is_told_with_what_follows_about_it(
    deltas: list[Delta], expected: list[Delta | Likely]
) -> None:
    assert list(paired(deltas)) == expected


def test_a_token_has_lists_where_others_have_nulls() -> None:
    rival = {"token": "é", "logprob": -2, "bytes": None}
    token = {"token": "a", "logprob": "low", "bytes": [97], "top_logprobs": [rival, 7]}

    assert logprob_object(token) == {
        "token": "a",
        "logprob": 0.0,
        "bytes": [97],
        "top_logprobs": [{"token": "é", "logprob": -2, "bytes": [195, 169]}],
    }
    assert logprob_object({})["top_logprobs"] == []

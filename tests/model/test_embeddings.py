"""A call for embeddings holds texts or tokens, and knows how many vectors it is for."""

import pytest

from appliance.model.embeddings import EmbeddingCall, Encoding


@pytest.mark.parametrize(
    ("call", "size"),
    [
        (EmbeddingCall(model="m", texts=("one", "two")), 2),
        (EmbeddingCall(model="m", tokens=((1, 2, 3),)), 1),
        (EmbeddingCall(model="m"), 0),
    ],
)
def test_there_is_a_vector_for_each_input(call: EmbeddingCall, size: int) -> None:
    assert call.size == size


def test_encodings_are_called_what_openai_calls_them() -> None:
    assert {str(each) for each in Encoding} == {"float", "base64"}
    assert EmbeddingCall(model="m").encoding is Encoding.FLOAT

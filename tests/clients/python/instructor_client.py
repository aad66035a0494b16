"""``instructor``: typed answers by tools and by JSON Schema."""

import instructor
import openai
import pytest
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


# Its JSON mode has the schema in the prompt alone, which the stub does not read.
@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA])
@pytest.mark.parametrize("name", ["chat", "responses", "messages"])
def test_an_answer_is_a_value(url: str, token: str, mode: instructor.Mode, name: str) -> None:
    sdk = openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0)
    client = instructor.from_openai(sdk, mode=mode)

    assert isinstance(ask(client, f"{name}/assistant"), Person)


def ask(client: instructor.Instructor, model: str) -> Person:
    return client.chat.completions.create(
        model=model,
        response_model=Person,
        messages=[{"role": "user", "content": "Ada is 36."}],
        max_retries=0,
    )


def test_parts_of_a_value_are_streamed(url: str, token: str) -> None:
    sdk = openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0)
    client = instructor.from_openai(sdk)

    parts = list(
        client.chat.completions.create_partial(
            model="messages/assistant",
            response_model=Person,
            messages=[{"role": "user", "content": "Ada is 36."}],
        )
    )

    assert isinstance(parts[-1].age, int)

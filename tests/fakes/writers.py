"""Writers of answers, for tests to which it does not matter who asked."""

from appliance.protocols.openai_chat import ChatWriter


def chat_writer(*, include_usage: bool = False) -> ChatWriter:
    return ChatWriter(id="chatcmpl-1", created=1, include_usage=include_usage)

"""A model provider that answers by rote: ``python -m tests.stub_provider [--port 9101]``.

It speaks OpenAI's chat completions, responses and embeddings, Anthropic's
messages (below ``/anthropic`` only with a key) and Ollama's own API,
each in one piece and streamed, decided by the path. The model's name says what
happens:

``mock``, or any name that is none of these
    an answer of 20 words and the usage it really has, a word being a token
``mock-300``
    the same with 300 words
``assistant``
    it behaves: see :mod:`tests.stub_provider.assistant`
``acts``
    it does as it is told: see :mod:`tests.stub_provider.acting`
``fault-<name>``
    one of :data:`tests.stub_provider.faults.FAULTS`; the header
    ``x-stub-fault: <name>`` does the same with any model
``missing``
    a model that does not exist
"""

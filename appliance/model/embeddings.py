"""Embeddings of texts, in words every provider understands."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from appliance.model.usage import TokenUsage


class Encoding(StrEnum):
    """How vectors are written in JSON."""

    FLOAT = "float"  # a list of numbers
    BASE64 = "base64"  # of little-endian float32


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCall:
    """One request to one model. Either ``texts`` or ``tokens`` is empty.

    ``tokens`` are texts that the caller has cut into a model's tokens already.
    ``encoding`` is what the caller reads; a provider may answer in the other.
    """

    model: str
    texts: Sequence[str] = ()
    tokens: Sequence[Sequence[int]] = ()
    encoding: Encoding = Encoding.FLOAT
    dimensions: int | None = None  # numbers of a vector; None: as many as the model gives
    user: str | None = None
    request_id: str = ""
    patience: float | None = None  # seconds to wait for the answer, instead of the provider's own

    @property
    def size(self) -> int:
        """How many vectors are asked for."""
        return len(self.texts) or len(self.tokens)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A vector as the JSON text of a list of numbers, in the provider's own digits."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Packed:
    """A vector as little-endian float32."""

    data: bytes


Vector = Numbers | Packed


@dataclass(frozen=True, slots=True)
class EmbeddingAnswer:
    """A vector for each input, in the order of the inputs, all of one length."""

    model: str  # as the provider calls it
    vectors: Sequence[Vector]
    usage: TokenUsage | None  # None: the provider did not say
    dimensions: int  # numbers of each vector
    provider_request_id: str | None = None

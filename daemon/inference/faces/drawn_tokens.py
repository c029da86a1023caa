"""The tokens of a reply's text among all that were drawn for it: the others reason, call tools or end it."""

from bisect import bisect_left, bisect_right

from pydantic import JsonValue

from daemon.inference.schemas import ChatLogprobs, LikelyToken, TokenLogprob
from streams.calls.faces import Body


class DrawnTokens:
    """The tokens of a reply with their log-probabilities, as far as it came."""

    def __init__(self) -> None:
        self._tokens: list[TokenLogprob] = []
        self._bytes = bytearray()
        self._ends: list[int] = []
        self._told = 0

    def add(self, logprobs: ChatLogprobs | None) -> None:
        for token in logprobs.content if logprobs is not None else ():
            self._tokens.append(token)
            self._bytes += bytes(token.bytes)
            self._ends.append(len(self._bytes))

    def of_text(self, text: str, reasoning: str) -> list[TokenLogprob]:
        """The tokens of `text`, which follows the `reasoning`; all, where a character of it is several tokens."""
        thought, said = reasoning.encode(), text.encode()
        if not text:
            return []
        begin = self._bytes.find(said, max(self._bytes.find(thought), 0) + len(thought))
        if begin < 0:
            return self._tokens
        return self._tokens[bisect_right(self._ends, begin) : bisect_left(self._ends, begin + len(said)) + 1]

    def untold(self, text: str, reasoning: str) -> list[TokenLogprob]:
        """Those of the text so far that this has not given before."""
        found = self.of_text(text, reasoning)
        told, self._told = self._told, max(self._told, len(found))
        return found[told:]


def told_whole(tokens: list[TokenLogprob]) -> list[JsonValue]:
    """The log-probabilities as a text has them."""
    return [_token(token) | {"top_logprobs": [_token(each) for each in token.top_logprobs]} for token in tokens]


def told_in_stream(tokens: list[TokenLogprob]) -> list[JsonValue]:
    """The log-probabilities as the events of a text have them: without bytes."""
    return [_value(token) | {"top_logprobs": [_value(each) for each in token.top_logprobs]} for token in tokens]


def _token(token: LikelyToken) -> Body:
    return _value(token) | {"bytes": list(token.bytes)}


def _value(token: LikelyToken) -> Body:
    return {"token": token.token, "logprob": token.logprob}

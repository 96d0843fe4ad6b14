"""Who may come in: API keys, origins of web pages, and how often one address may ask."""

from __future__ import annotations

import hmac
import re
import time
from collections import OrderedDict
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from ..errors import UserError
from .settings import Refused, Settings

# addresses whose recent requests are remembered
MAX_ADDRESSES = 10000
# how browsers hand a key to OpenAI's WebSocket, which cannot set headers there
PROTOCOL_KEY = "openai-insecure-api-key."


def read_origin(text: str) -> tuple[str, ...]:
    """Origins as browsers send them, from what people type; both schemes where none is given.

    Case, the default port and a slash at the end make no difference. Raises UserError for what is no origin.
    """
    text = text.strip()
    if text in ("*", "null"):
        return (text,)
    wrong = UserError(
        f"--origin {text!r}: write the scheme and the host of the other site, as https://example.org or "
        "http://localhost:3000, or * for all"
    )
    schemes = ("https", "http") if "://" not in text else ("",)
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        host, port = parts.hostname or "", parts.port
        if "." in host and ":" not in host and not host.isascii():
            host = host.encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        raise wrong from None
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise wrong
    if not re.fullmatch(r"[a-z0-9.:_-]+", host) or (
        schemes == ("",) and not re.fullmatch("[a-z+.-]+", parts.scheme)
    ):
        raise wrong
    shown = f"[{host}]" if ":" in host else host
    origins = []
    for scheme in schemes:
        scheme = scheme or parts.scheme
        default = {"http": 80, "https": 443}.get(scheme)
        origins.append(f"{scheme}://{shown}" + (f":{port}" if port not in (None, default) else ""))
    return tuple(origins)


class Guard:
    """Checks of one server; all raise Refused."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # address -> (tokens left, when); the least recent first
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check_key(self, request: HTTPConnection) -> None:
        """The key may be a bearer token, `?key=`, or in a WebSocket's subprotocol."""
        keys = self._settings.keys
        if not keys:
            return
        given = [request.query_params.get("key", "")]
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            given.append(token.strip())
        for name in request.scope.get("subprotocols", ()):
            if name.startswith(PROTOCOL_KEY):
                given.append(name.removeprefix(PROTOCOL_KEY))
        # all comparisons are made, and each takes as long as any other
        found = [hmac.compare_digest(g.encode(), k.encode()) for g in given for k in keys]
        if not any(found):
            raise Refused("unauthorized", "the API key is missing or wrong")

    def check_origin(self, request: HTTPConnection) -> None:
        """Pages of this server may connect, and those of allowed origins; so may what is no browser."""
        given = request.headers.get("origin")
        if given is None or "*" in self._settings.origins:
            return
        try:
            (origin,) = read_origin(given)
            host = request.headers.get("host", "")
            same = origin in (*read_origin(f"http://{host}"), *read_origin(f"https://{host}"))
        except (UserError, ValueError):
            origin, same = given, False
        if not same and origin not in self._settings.origins:
            raise Refused(
                "forbidden", "pages of this origin may not connect; the server's --origin allows them"
            )

    def count(self, request: HTTPConnection) -> None:
        """One more session or upload from where this comes from."""
        self.count_address(request.client.host if request.client else "")

    def count_address(self, address: str) -> None:
        """One more session or upload from this address."""
        rate = self._settings.per_minute
        if not rate:
            return
        now = time.monotonic()
        tokens, when = self._buckets.pop(address, (float(rate), now))
        tokens = min(float(rate), tokens + (now - when) * rate / 60)
        allowed = tokens >= 1
        self._buckets[address] = (tokens - 1 if allowed else tokens, now)
        while len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        if not allowed:
            raise Refused("rate_limited", "too many requests from this address; wait a minute")

"""What an operator can set, and how the server says no."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Limits of one server. Seconds and bytes; every limit is there so that memory stays bounded.

    sessions: WebSockets and uploads that are recognised at a time. batch: streams stepped together.
    buffer_seconds: audio that waits for one session before its client has to wait. outbox: events that wait
    for one client before its recognition pauses. lag_seconds: new sessions are refused while a chunk has
    waited for so long. idle_seconds: a session ends without audio. send_seconds: a client that takes nothing
    for so long is dropped. drain_seconds: at the end, for finals to be sent. upload_seconds: length of an
    uploaded recording. form_seconds: for an upload to arrive. per_minute: sessions and uploads from one
    address, 0 for any number. keys: none lets everyone in. origins: of other sites whose pages may connect;
    "*" for all. hotwords: terms that all sessions prefer, beside their own.
    numbers: the form of numbers where a session names none.
    """

    sessions: int = 64
    batch: int = 32
    buffer_seconds: float = 10.0
    outbox: int = 512
    lag_seconds: float = 5.0
    idle_seconds: float = 60.0
    send_seconds: float = 20.0
    drain_seconds: float = 30.0
    ping_seconds: float = 20.0
    message_bytes: int = 4 << 20
    # a larger message is answered with an error; one of so many times that size ends the connection
    frame_factor: int = 6
    upload_bytes: int = 200 << 20
    upload_seconds: float = 4 * 3600.0
    form_seconds: float = 600.0
    per_minute: int = 600
    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    log_transcripts: bool = False
    hotwords: tuple[str, ...] = ()
    numbers: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                low = 0 if field.name == "per_minute" else 1e-3 if isinstance(value, float) else 1
                if not value >= low:
                    raise UserError(f"{field.name} must be at least {low:g}, not {value}")
        if any(not key or not key.isascii() or not key.isprintable() for key in self.keys):
            raise UserError("API keys must be printable ASCII, one a line")


# close codes of WebSockets (RFC 6455 and its registry)
CLOSE_CODES = {
    "busy": 1013,
    "rate_limited": 1013,
    "draining": 1012,
    "unauthorized": 1008,
    "bad_request": 1008,
    "bad_message": 1007,
    "too_large": 1009,
    "idle": 1008,
    "too_slow": 1008,
    "internal": 1011,
}
HTTP_STATUS = {
    "busy": 503,
    "rate_limited": 429,
    "draining": 503,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "model_not_found": 404,
    "bad_request": 400,
    "too_large": 413,
    "too_slow": 408,
    "gone": 499,
    "no_storage": 507,
    "internal": 500,
}


class Refused(Exception):
    """The server says no, or a session ends before its time; never more than one session's affair."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    @property
    def close_code(self) -> int:
        return CLOSE_CODES.get(self.code, 1008)

    @property
    def status(self) -> int:
        return HTTP_STATUS.get(self.code, 400)

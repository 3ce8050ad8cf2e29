"""What can be wrong with a request, and how HTTP says it."""

from __future__ import annotations

from terazi.errors import EngineError, NotFoundError, TeraziError, UnsupportedError, UsageError

__all__ = ["BusyError", "RequestError", "status_of"]


class BusyError(Exception):
    """The line is full. ``retry_after`` is how many seconds to wait before trying again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many requests are waiting; try again in {retry_after} s")
        self.retry_after = retry_after


class RequestError(TeraziError):
    """The request is wrong; ``status`` and ``code`` say how."""

    def __init__(self, message: str, *, status: int = 400, code: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.code = status, code


def status_of(error: Exception) -> tuple[int, str, str]:
    """Return HTTP status, a code word and a sentence for an error."""
    if isinstance(error, RequestError):
        return error.status, error.code, error.message
    if isinstance(error, BusyError):
        return 429, "rate_limit_exceeded", str(error)
    if isinstance(error, TeraziError):
        statuses = ((NotFoundError, 404), (UsageError, 400), (UnsupportedError, 400), (EngineError, 503))
        status = next((status for kind, status in statuses if isinstance(error, kind)), 400)
        hint = f" ({error.hint})" if error.hint else ""
        return (
            status,
            {404: "not_found", 503: "engine_error"}.get(status, "invalid_request_error"),
            f"{error}{hint}",
        )
    return 500, "internal_error", "the server failed; its log says why"

"""Requests to servers that nobody vouches for: short timeouts, careful redirects, clear errors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from terazi.errors import DownloadError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx2

__all__ = ["client", "explain", "get_json", "open_stream"]

_REDIRECTS = 8
_CROSSES_ORIGINS = frozenset({"accept", "accept-encoding", "if-range", "range", "user-agent"})
_DOCUMENT = 32 << 20  # more than any index or manifest needs


def client(*, connect: float = 5.0, read: float = 30.0) -> httpx2.Client:
    """Return an HTTP client; times out after ``connect`` or ``read`` seconds of silence."""
    import httpx2

    return httpx2.Client(
        timeout=httpx2.Timeout(read, connect=connect),
        follow_redirects=False,
        headers={"User-Agent": "terazi", "Accept-Encoding": "identity"},
        limits=httpx2.Limits(max_connections=16),
    )


@contextmanager
def open_stream(
    http: httpx2.Client,
    url: str,
    headers: Mapping[str, str],
    method: str = "GET",
    content: bytes | None = None,
) -> Iterator[httpx2.Response]:
    """Yield the response behind up to 8 redirects, its body not read yet.

    Headers that could identify the user stay with the first host. A redirect from https to http, or to
    anything else, raises `DownloadError`.
    """
    import httpx2

    address = httpx2.URL(url)
    sent = dict(headers)
    for _ in range(_REDIRECTS):
        response = http.send(http.build_request(method, address, headers=sent, content=content), stream=True)
        try:
            if not response.has_redirect_location:
                yield response
                return
            target = address.join(response.headers["location"])
        finally:
            response.close()
        if target.scheme not in ("https", "http") or (address.scheme == "https" and target.scheme == "http"):
            raise DownloadError(f"{address.host} redirects to an unsafe address ({target.scheme})")
        if (target.scheme, target.host, target.port) != (address.scheme, address.host, address.port):
            sent = {key: value for key, value in sent.items() if key.lower() in _CROSSES_ORIGINS}
        address = target
    raise DownloadError(f"{httpx2.URL(url).host} redirects without end")


def get_json(http: httpx2.Client, url: str, headers: Mapping[str, str] | None = None) -> Any:
    """Fetch a small JSON document. Raises `DownloadError` or `NotFoundError`."""
    import json

    import httpx2

    for attempt in (1, 2, 3):
        try:
            return json.loads(_small_body(http, url, headers or {}))
        except httpx2.TransportError as error:
            if attempt == 3 or isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
                raise DownloadError(f"{url}: {error or type(error).__name__}") from None
        except (httpx2.InvalidURL, ValueError, RecursionError) as error:
            raise DownloadError(f"{url}: {error}") from None
    raise AssertionError


def _small_body(http: httpx2.Client, url: str, headers: Mapping[str, str]) -> bytes:
    with open_stream(http, url, headers) as response:
        if response.status_code != 200:
            raise explain(response)
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _DOCUMENT:
                raise DownloadError(f"{response.url.host} sent an index of more than 32 MB")
    return bytes(body)


def explain(response: httpx2.Response) -> DownloadError | NotFoundError:
    """Say what an error response means."""
    status, host = response.status_code, response.url.host
    if status == 404:
        return NotFoundError(f"{host} has no {response.url.path}")
    if status in (401, 403):
        return DownloadError(
            f"{host} refuses access ({status})", hint="log in, or accept the model's terms there"
        )
    return DownloadError(f"{host} answers with status {status}", hint="try again later")

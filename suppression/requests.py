"""Reading request bodies that have a limit of their own."""

from aiohttp import web


class BodyTooLarge(Exception):
    """The body has more bytes than may be sent."""


async def read_at_most(request: web.Request, limit: int) -> bytes:
    """The body; `BodyTooLarge` as soon as it is longer than the limit, so that no more than that is ever held."""
    if (request.content_length or 0) > limit:
        raise BodyTooLarge
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge
    return bytes(body)

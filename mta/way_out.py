"""The canary's hand: posts a one-click unsubscribe to the public URL, as a mailbox provider would."""

import ssl

import aiohttp

from config.settings import Settings


class WayOut:
    """Posts to the installation's own public URL."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.web_url
        # the certificate that Heed makes for itself proves nothing; one that was configured must be good
        self._context = ssl.create_default_context()
        if settings.tls.certificate is None and settings.identity.web_url is None:
            self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE

    async def post(self, token: str) -> int:
        """The status of the answer; raises OSError, aiohttp.ClientError."""
        async with aiohttp.ClientSession() as session:
            url, body = f"{self._url}/u/{token}", {"List-Unsubscribe": "One-Click"}
            async with session.post(url, data=body, ssl=self._context, allow_redirects=False) as answer:
                return answer.status

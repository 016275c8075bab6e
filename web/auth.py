"""The operator's token: who may see every session, run sweeps and read the metrics."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

# `auto_error` off: the answers are ours; it stands here for the OpenAPI schema.
bearer = HTTPBearer(auto_error=False, description="COATCHECK_OPERATOR_TOKEN")

_UNSET = "No operator token is set, so this is closed: set COATCHECK_OPERATOR_TOKEN, and restart."
_MISSING = "This needs the operator token: send the header Authorization: Bearer TOKEN."
_WRONG = "The token is not the operator's: compare it with COATCHECK_OPERATOR_TOKEN."


def needs_token(
    token: SecretStr | None,
) -> Callable[[HTTPAuthorizationCredentials | None], Awaitable[None]]:
    """A dependency that lets only the operator in.

    Raises HTTPException: 403 where no token is set, 401 without one, 403 with a wrong one.
    """

    async def check(
        credentials: HTTPAuthorizationCredentials | None = Depends(bearer),
    ) -> None:
        if token is None:
            raise HTTPException(403, _UNSET)
        if credentials is None:
            raise HTTPException(401, _MISSING, {"WWW-Authenticate": "Bearer"})
        if not is_token(credentials.credentials, token):
            raise HTTPException(403, _WRONG)

    return check


def is_token(given: str, token: SecretStr) -> bool:
    """Whether `given` is the token, in a time that does not tell how much of it is right."""
    # Headers are bytes, which the server decoded as Latin-1.
    return hmac.compare_digest(
        given.encode("latin-1", "backslashreplace"), token.get_secret_value().encode()
    )

"""The one table of answers that are errors, in OpenAI's shape: status, type, code, and what a client may do.

{"error": {"message": "...", "type": "invalid_request_error", "param": "max_tokens", "code": "bad_value"}}
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from starlette.exceptions import HTTPException

from pythia_gguf.errors import ModelFileError, NetworkError, PythiaGGUFError, UsageError, one_line

# Code -> HTTP status and type.
CODES: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "bad_value": (400, "invalid_request_error"),
        "bad_json": (400, "invalid_request_error"),
        "bad_request": (400, "invalid_request_error"),
        "unsupported": (400, "invalid_request_error"),
        "context_length_exceeded": (400, "invalid_request_error"),
        "wrong_key": (401, "authentication_error"),
        "wrong_host": (403, "permission_error"),
        "no_such_route": (404, "invalid_request_error"),
        "no_such_model": (404, "invalid_request_error"),
        "wrong_method": (405, "invalid_request_error"),
        "too_slow": (408, "invalid_request_error"),
        "too_large": (413, "invalid_request_error"),
        "wrong_content_type": (415, "invalid_request_error"),
        "headers_too_large": (431, "invalid_request_error"),
        "client_left": (499, "invalid_request_error"),  # for the counters alone
        "internal": (500, "server_error"),
        "model_failed": (500, "server_error"),
        "busy": (503, "server_error"),
        "deadline": (504, "server_error"),
    }
)
_RETRY_AFTER_S = 1


class RefusalError(HTTPException):
    """A request that gets an error for an answer.

    code     a key of `CODES`
    status   of the answer
    headers  of the answer, beside those that every answer has
    """

    def __init__(self, code: str, message: str, param: str | None = None, **headers: str) -> None:
        self.code, self.message, self.param = code, one_line(message, 900), param
        self.status, self.type = CODES[code]
        # FastAPI lets an HTTPException pass where a body is read, and answers all others itself.
        super().__init__(self.status, self.message)
        self.headers: dict[str, str] = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.status == 503:
            self.headers["retry-after"] = str(_RETRY_AFTER_S)
        if self.status == 401:
            self.headers["www-authenticate"] = "Bearer"

    @property
    def body(self) -> dict[str, Any]:
        """What the client reads."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def refusal_of(error: PythiaGGUFError | TypeError | MemoryError) -> RefusalError:
    """The answer for an error of the library, which names fields of a request by their own names."""
    if isinstance(error, MemoryError):
        return RefusalError("busy", "memory is short: try again, or ask for less")
    if isinstance(error, UsageError):
        return RefusalError("bad_value", str(error), error.argument)
    if isinstance(error, TypeError):
        return RefusalError("bad_value", str(error))
    if isinstance(error, ModelFileError | NetworkError):
        return RefusalError("model_failed", str(error), "model")
    return RefusalError("internal", str(error))

"""Who may do what at the serve role: the gateway asks for itself, and the guard for the control API."""

from starlette.types import Scope

from daemon.serving.settings import ServingSettings
from streams.access.access import Access, caller_of
from streams.access.tokens import AccessRole, callers

GATEWAY = "/v1"
NEEDS = {
    **dict.fromkeys(("/status", "/history", "/metrics"), AccessRole.READ),
    **dict.fromkeys(("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"), AccessRole.READ),
    **dict.fromkeys(("/promote", "/approve", "/reject", "/rollback", "/restore"), AccessRole.OPERATE),
    **dict.fromkeys(("/hold", "/resume", "/cycles", "/drill", "/load"), AccessRole.OPERATE),
}


def access_of(settings: ServingSettings) -> Access:
    """Who may ask, where the settings alone have tokens."""
    return Access(settings.host, "serving.host", configured=callers(settings.tokens, AccessRole.ASK))


def principal_of(scope: Scope) -> str | None:
    """The principal that a request's token proves; None where it came without."""
    caller = caller_of(scope)
    return None if caller is None else caller.principal


def keeps_credentials(access: Access, scope: Scope) -> bool:
    """Return whether the request's token is for the gateway, so that the inference server must not get it."""
    return access.closes(AccessRole.ASK) or caller_of(scope) is not None

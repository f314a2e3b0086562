"""The HTTP API: tickets, sessions, metrics. web/openapi.json describes it, and a test compares.

Every handler takes a request and gives a response; `ROUTES` says which paths and methods there
are, and who may call them.
"""

import json
import math
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from snf_ganeti.errors import InputError, SnfError
from vncauthproxy import tickets
from vncauthproxy.connections.http_server import Request, Response, make_error, make_json
from vncauthproxy.entrances.browser import PATH as WEBSOCKET
from vncauthproxy.instances.targets import (
    Target,
    find_places,
    is_in_networks,
    parse_address,
    parse_target,
)
from vncauthproxy.proxy import Proxy
from vncauthproxy.session import format_time
from vncauthproxy.tickets import Grant

_TEXT_LIMIT = 255
_ID = re.compile(r"[0-9a-f]{16}")
_MARKER = "{id}"


@dataclass(frozen=True)
class Order:
    """The body of `POST /tickets`."""

    target: Target
    user: str
    view_only: bool = False
    clipboard: bool = True
    lifetime: float = 0.0
    origin: str = ""
    address: str = ""
    password: str = field(default="", repr=False)


ORDER_KINDS: dict[str, tuple[type, ...]] = {
    "instance": (str,),
    "target": (dict,),
    "user": (str,),
    "view_only": (bool,),
    "clipboard": (bool,),
    "lifetime": (int, float),
    "origin": (str,),
    "address": (str,),
    "password": (str,),
}


def parse_object(body: bytes, kinds: dict[str, tuple[type, ...]]) -> dict[str, Any]:
    """A JSON object with these keys and types and no others. Raises InputError."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("the body is not JSON") from None
    if not isinstance(document, dict):
        raise InputError("the body is not a JSON object")
    for key, value in document.items():
        if key not in kinds:
            raise InputError(f"unknown key {key[:80]!r}", hint=f"known: {', '.join(kinds)}")
        if type(value) not in kinds[key]:
            raise InputError(f"{key} must be {kinds[key][0].__name__}")
        if isinstance(value, str) and (len(value) > _TEXT_LIMIT or not value.isprintable()):
            raise InputError(f"{key} is too long or holds characters that can't be shown")
    return document


def parse_order(body: bytes) -> Order:
    """Raises InputError."""
    document = parse_object(body, ORDER_KINDS)
    instance = document.pop("instance", "")
    target = document.pop("target", {})
    if bool(instance) == bool(target):
        raise InputError("name either instance or target")
    if not document.get("user"):
        raise InputError("user is missing: whom is the ticket for?")
    order = Order(parse_target({"instance": instance, **target}), **document)
    if "lifetime" in document and not 0 < order.lifetime < math.inf:
        raise InputError("lifetime must be more than 0")
    if order.origin:
        parts = urlsplit(order.origin)
        if not parts.scheme or not parts.netloc or parts.path or parts.query or "@" in parts.netloc:
            raise InputError("origin must be such as https://panel.example")
    if order.address:
        try:
            parse_address(order.address)
        except ValueError:
            raise InputError("address must be an IP address") from None
    return order


async def post_tickets(proxy: Proxy, request: Request, _: str) -> Response:
    order = parse_order(request.body)
    if not order.target.instance:  # what could never be opened is refused at once
        await find_places(order.target, proxy.settings.targets)
    chosen = proxy.settings.tickets
    lifetime = min(order.lifetime or chosen.lifetime, chosen.max_lifetime)
    grant = Grant(
        session=tickets.make_session_id(),
        user=order.user,
        name=str(order.target),
        target=order.target,
        view_only=order.view_only,
        clipboard=order.clipboard,
        origin=order.origin,
        address=order.address,
        password=order.password,
    )
    ticket = await tickets.issue(proxy.store, grant, lifetime)
    proxy.metrics.tickets.inc()
    return make_json(HTTPStatus.CREATED, _show_ticket(proxy, grant, ticket, lifetime))


def _show_ticket(proxy: Proxy, grant: Grant, ticket: str, lifetime: float) -> dict[str, Any]:
    base = proxy.settings.public_url
    parts = urlsplit(base)
    return {
        "session": grant.session,
        "ticket": ticket,
        # After the # a browser keeps it to itself: it is in no log and no Referer.
        "url": None if proxy.page.lack else f"{base}/#{ticket}",
        "websocket": f"wss://{base.removeprefix('https://')}{WEBSOCKET}",
        "viewer": {"host": parts.hostname, "port": parts.port or 443, "password": ticket},
        "expires": format_time(time.time() + lifetime),
    }


async def get_sessions(proxy: Proxy, request: Request, _: str) -> Response:
    return make_json(HTTPStatus.OK, {"sessions": await proxy.find_sessions()})


async def delete_session(proxy: Proxy, request: Request, session_id: str) -> Response:
    if not await proxy.end_session(session_id):
        return _make_not_found(session_id)
    return Response(HTTPStatus.NO_CONTENT)


async def patch_session(proxy: Proxy, request: Request, session_id: str) -> Response:
    change = parse_object(request.body, {"view_only": (bool,)})
    if "view_only" not in change:
        raise InputError("view_only is missing")
    shown = await proxy.change(session_id, change)
    if shown is None:
        return _make_not_found(session_id)
    return make_json(HTTPStatus.OK, shown)


def _make_not_found(session_id: str) -> Response:
    return make_error(HTTPStatus.NOT_FOUND, f"no session {session_id} is open")


async def get_metrics(proxy: Proxy, request: Request, _: str) -> Response:
    return Response(HTTPStatus.OK, proxy.metrics.render(), "text/plain; version=0.0.4")


async def get_health(proxy: Proxy, request: Request, _: str) -> Response:
    draining = proxy.sessions.draining
    status = HTTPStatus.SERVICE_UNAVAILABLE if draining else HTTPStatus.OK
    return make_json(status, {"status": "draining" if draining else "ok"})


Handler = Callable[[Proxy, Request, str], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """closed: for controllers, or for those whom `metrics_networks` lets in."""

    handler: Handler
    closed: bool = True
    by_network: bool = False


ROUTES: dict[str, dict[str, Route]] = {
    "/tickets": {"POST": Route(post_tickets)},
    "/sessions": {"GET": Route(get_sessions)},
    "/sessions/{id}": {"DELETE": Route(delete_session), "PATCH": Route(patch_session)},
    "/metrics": {"GET": Route(get_metrics, by_network=True)},
    "/health": {"GET": Route(get_health, closed=False)},
}


def find_routes(path: str) -> tuple[dict[str, Route], str]:
    """The routes of a path by method, and the id in it."""
    head, _, tail = path.rpartition("/")
    if _ID.fullmatch(tail):
        return ROUTES.get(f"{head}/{_MARKER}", {}), tail
    return ROUTES.get(path, {}) if _MARKER not in path else {}, ""


async def answer(proxy: Proxy, request: Request) -> Response:
    """What a request that is no WebSocket gets."""
    routes, session_id = find_routes(request.path)
    route = routes.get(request.method)
    if not route:
        return _answer_otherwise(proxy, request, sorted(routes))
    if route.closed and not _is_let_in(proxy, request, route):
        reason = "this needs a controller's token or certificate"
        return make_error(HTTPStatus.UNAUTHORIZED, reason, WWW_Authenticate="Bearer")
    try:
        return await route.handler(proxy, request, session_id)
    except InputError as error:
        return make_error(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
    except SnfError as error:
        return make_error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))


def _answer_otherwise(proxy: Proxy, request: Request, methods: list[str]) -> Response:
    page = proxy.page.find(request.path)
    methods = ["GET", "HEAD"] if page else methods
    if page and request.method in methods:
        return page
    if methods:
        allow = ", ".join(methods)
        return make_error(HTTPStatus.METHOD_NOT_ALLOWED, f"only {allow} is", Allow=allow)
    if request.path == WEBSOCKET:
        return make_error(HTTPStatus.UPGRADE_REQUIRED, "this is for WebSockets")
    return make_error(HTTPStatus.NOT_FOUND, "there is nothing here")


def _is_let_in(proxy: Proxy, request: Request, route: Route) -> bool:
    if proxy.controllers.identify(request):
        return True
    return route.by_network and is_in_networks(request.peer, proxy.settings.metrics_networks)

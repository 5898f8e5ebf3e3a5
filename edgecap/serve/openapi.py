"""``/openapi.json``: the server's addresses for people's tools; schemas are ``answers``'."""

from __future__ import annotations

from typing import Any

import msgspec

from edgecap.serve import answers
from edgecap.serve.pictures import FIELD, TYPES
from edgecap.serve.posted import OPTIONS

_REF = "#/components/schemas/{name}"
_SOURCE = {
    "name": "source",
    "in": "query",
    "schema": {"type": "string"},
    "description": "A camera's name, as in /v1/status; the first one, or all, if not given.",
}
# Problems that any address may answer with.
_ALWAYS = {
    400: "A bad request, said in one line.",
    401: "The token is missing or wrong.",
    429: "Too many requests from one address.",
}


def document() -> dict[str, Any]:
    """An OpenAPI 3.1 document of every address."""
    import edgecap

    kinds = [
        kind
        for kind in vars(answers).values()
        if isinstance(kind, type)
        and issubclass(kind, answers.Answer)
        and kind is not answers.Answer
    ]
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "EdgeCap",
            "version": edgecap.__version__,
            "summary": "Captions of posted pictures and of cameras.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "edgecap"},
            },
        },
        # The last one: none is needed where the server was started without a token.
        "security": [{"token": []}, {"cookie": []}, {}],
    }


def _paths() -> dict[str, Any]:
    number = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
    limit = {"name": "limit", "in": "query", "schema": {"type": "integer", "default": 50}}
    last = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "integer"}}
    captions = {"type": "array", "items": _ref(answers.CameraCaption)}
    switch = _json_body(answers.ProfileName)
    return {
        "/v1/caption": {"post": _caption()},
        "/v1/events": {
            "get": _operation(
                "events",
                "Server-sent events: `caption` (CameraCaption), `notice`, `status` each second.",
                {200: ("text/event-stream", {"type": "string"})},
                [last],
                {503: "Too many clients listen."},
            )
        },
        "/v1/status": {"get": _json("status", "The numbers of now.", answers.ServerStatus)},
        "/v1/history": {
            "get": _operation(
                "history",
                "The last captions, newest first.",
                {200: ("application/json", captions)},
                [limit],
            )
        },
        "/v1/history/{id}.jpg": {
            "get": _picture("thumbnail", "A caption's picture, at most 320 pixels wide.", [number])
        },
        "/v1/frame.jpg": {"get": _picture("frame", "A camera's newest frame.", [_SOURCE])},
        "/v1/preview.mjpeg": {
            "get": _operation(
                "preview",
                "A camera's moving picture, as JPEGs one after another.",
                {200: ("multipart/x-mixed-replace", {"type": "string"})},
                [_SOURCE],
                {404: "No such camera, or no frame yet.", 503: "Too many previews are open."},
            )
        },
        "/v1/describe": {
            "post": _json(
                "describe", "Caption the next frame whatever the gate says.", answers.Asked, 202,
                [_SOURCE], {404: "No such camera.", 409: "No camera runs."},
            )
        },
        "/v1/profiles": {"get": _json("profiles", "Profiles of cameras.", answers.Profiles)},
        "/v1/profile": {
            "put": {
                **_json(
                    "switchProfile", "Go on with another profile.", answers.CurrentProfile, 200, [],
                    {409: "No such profile, or no camera."},
                ),
                "requestBody": switch,
            }
        },
        "/login": {
            "post": {
                **_json("login", "A cookie for browsers.", answers.Done),
                "requestBody": _json_body(answers.Token),
                "security": [{}],
            }
        },
        "/logout": {"post": _json("logout", "The cookie goes.", answers.Done)},
        "/healthz": {"get": {**_health(), "security": [{}]}},
        "/metrics": {
            "get": _operation(
                "metrics", "Numbers for Prometheus.", {200: ("text/plain", {"type": "string"})}
            )
        },
    }  # fmt: skip


def _caption() -> dict[str, Any]:
    picture = {"type": "string", "contentMediaType": "image/*"}
    form = {"type": "object", "properties": {FIELD: picture}, "required": [FIELD]}
    content: dict[str, Any] = {kind: {} for kind in TYPES}
    content["multipart/form-data"] = {"schema": form}
    types = {int: "integer", float: "number"}
    query = [
        {"name": name, "in": "query", "schema": {"type": types[kind]}}
        for name, (_, kind) in OPTIONS.items()
    ]
    problems = {
        408: "The picture came too slowly.",
        413: "Too many bytes or pixels.",
        415: "No picture of a known type.",
        503: "Too many pictures wait; see Retry-After.",
    }
    return {
        **_json("caption", "Caption a picture.", answers.PostedCaption, 200, query, problems),
        "requestBody": {"required": True, "content": content},
    }


def _health() -> dict[str, Any]:
    return _operation(
        "health",
        "200 while captions come, else 503 and why.",
        {code: ("application/json", _ref(answers.Health)) for code in (200, 503)},
    )


def _picture(name: str, about: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return _operation(
        name, about, {200: ("image/jpeg", {})}, parameters, {404: "There is no such picture."}
    )


def _json(
    name: str,
    about: str,
    kind: type,
    status: int = 200,
    parameters: list[dict[str, Any]] | None = None,
    problems: dict[int, str] | None = None,
) -> dict[str, Any]:
    given = {status: ("application/json", _ref(kind))}
    return _operation(name, about, given, parameters, problems)


def _json_body(kind: type) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": _ref(kind)}}}


def _operation(
    name: str,
    about: str,
    answered: dict[int, tuple[str, dict[str, Any]]],
    parameters: list[dict[str, Any]] | None = None,
    problems: dict[int, str] | None = None,
) -> dict[str, Any]:
    error = {"application/json": {"schema": _ref(answers.Error)}}
    responses: dict[str, Any] = {
        str(status): {"description": about, "content": {kind: {"schema": schema}}}
        for status, (kind, schema) in answered.items()
    }
    for status, line in {**_ALWAYS, **(problems or {})}.items():
        responses.setdefault(str(status), {"description": line, "content": error})
    return {
        "operationId": name,
        "summary": about,
        "parameters": parameters or [],
        "responses": responses,
    }


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}

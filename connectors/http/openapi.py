"""OpenAPI description: request and answer types of every route, from the types that are encoded."""

from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI
from msgspec import Meta

from ...engine.events import MAX_ID_BYTES, MAX_K, MAX_TIME_MS
from ...engine.results import Health, IngestReport, Recommendation, Refusal, TrainReport, VersionInfo
from . import wire

__all__ = ["MAX_EVENTS", "describe"]

# more records than this in one request would hold up the other writers for too long
MAX_EVENTS = 10_000

# formats of our own, for what a schema has no words for
_ID = {"format": "id"}
_Id = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_ID_BYTES,
        description=f"at most {MAX_ID_BYTES} bytes of UTF-8",
        extra_json_schema=_ID,
    ),
]
_IntegerId = Annotated[int, Meta(ge=1 - 2**63, le=2**63 - 1)]
_TimeMs = Annotated[int, Meta(ge=0, le=MAX_TIME_MS, description="milliseconds since the epoch")]
_TimeText = Annotated[str, Meta(description="RFC 3339, from 1970 on", extra_json_schema={"format": "date-time"})]
_Weight = Annotated[float, Meta(ge=-1e30, le=1e30)]


class WireEvent(msgspec.Struct, rename={"time_ms": "time"}):
    """One event; a record with `user` and `"forget": true` erases the user instead."""

    user: _Id | _IntegerId
    item: _Id | _IntegerId
    time_ms: _TimeMs | _TimeText
    type: Annotated[str, Meta(max_length=MAX_ID_BYTES, extra_json_schema=_ID)] | None = None
    weight: _Weight | None = None
    id: _Id | _IntegerId | None = None


class WireItem(msgspec.Struct):
    """One catalogue record; further fields are kept as attributes: anything that is JSON, with integers of 64 bits."""

    item: _Id | _IntegerId
    title: str | None = None
    categories: list[str] | None = None
    available: bool = True


_ANSWERS: dict[tuple[str, str], Any] = {
    ("post", "/v1/events"): IngestReport,
    ("post", "/v1/items"): IngestReport,
    ("get", "/v1/users/{user}/recommendations"): Recommendation,
    ("get", "/v1/users/{user}/history"): wire.History,
    ("delete", "/v1/users/{user}"): wire.Forgotten,
    ("get", "/v1/items/{item}/similar"): Recommendation,
    ("get", "/v1/versions"): list[VersionInfo],
    ("get", "/v1/refusals"): list[Refusal],
    ("post", "/v1/versions/{number}/rollback"): list[VersionInfo],
    ("post", "/v1/train"): TrainReport,
    ("get", "/health"): Health,
    ("get", "/livez"): wire.Liveness,
    ("get", "/readyz"): wire.Readiness,
    ("get", "/v1/live"): wire.PageFigures,
    ("get", "/v1/digest"): wire.Digest,
}
# answers with another status than 200 and 422
_FURTHER: dict[tuple[str, str], tuple[HTTPStatus, str, Any]] = {
    ("post", "/v1/train"): (HTTPStatus.ACCEPTED, "Training has started", wire.Started),
    ("get", "/readyz"): (HTTPStatus.SERVICE_UNAVAILABLE, "Not ready, and why", wire.Readiness),
}
# failures that are part of the answer
_FAILURES: dict[tuple[str, str], tuple[int, ...]] = {
    ("post", "/v1/events"): (408, 413, 415, 503, 507),
    ("post", "/v1/items"): (408, 413, 415, 503, 507),
    ("get", "/v1/users/{user}/recommendations"): (503,),
    ("get", "/v1/users/{user}/history"): (404,),
    ("get", "/v1/items/{item}/similar"): (404, 503),
    ("post", "/v1/versions/{number}/rollback"): (409,),
    ("post", "/v1/train"): (409,),
}
_BODIES: dict[tuple[str, str], Any] = {
    ("post", "/v1/events"): WireEvent | Annotated[list[WireEvent], Meta(max_length=MAX_EVENTS)],
    ("post", "/v1/items"): WireItem | Annotated[list[WireItem], Meta(max_length=MAX_EVENTS)],
}
# parameters whose bounds the engine checks, with errors of its own
_PARAMETERS: dict[str, dict[str, Any]] = {
    "user": {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES, **_ID},
    "item": {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES, **_ID},
    "k": {"type": "integer", "minimum": 1, "maximum": MAX_K, "default": 10},
    "at": {"type": "string", "minLength": 1, "format": "moment"},
    "where": {"type": "string", "minLength": 1, "maxLength": 10_000, "format": "filter"},
}
# what an attribute of an item may be
_ATTRIBUTE: dict[str, Any] = {
    "title": "Attribute",
    "description": "A further field of a catalogue record.",
    "anyOf": [
        {"type": "null"},
        {"type": "boolean"},
        {"type": "integer", "minimum": 1 - 2**63, "maximum": 2**63 - 1},
        {"type": "number"},
        {"type": "string"},
        {"type": "array", "items": {"$ref": "#/components/schemas/Attribute"}},
        {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Attribute"}},
    ],
}


def describe(app: FastAPI) -> None:
    """Complete the description that FastAPI makes of an application with the types of bodies and answers."""
    made = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(made())
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]  # the documented way to extend the description


def _completed(schema: dict[str, Any]) -> dict[str, Any]:
    further = [answer for _, _, answer in _FURTHER.values()]
    types = [*_ANSWERS.values(), *_BODIES.values(), *further, wire.Failure]
    shapes, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schemas = iter(shapes)
    answers = {key: _content(next(schemas)) for key in _ANSWERS}
    bodies = {key: _content(next(schemas)) for key in _BODIES}
    others = {key: _content(next(schemas)) for key in _FURTHER}
    failure = {"description": "Not done, and why", "content": _content(next(schemas))}
    paths = {path.replace(":id}", "}"): routes for path, routes in schema["paths"].items()}
    for path, routes in paths.items():
        for method, route in routes.items():
            key, responses = (method, path), route["responses"]
            if key in answers:
                responses["200"]["content"] = answers[key]
            if key in bodies or "422" in responses:
                responses["422"] = failure
            if key in bodies:
                route["requestBody"] = {"required": True, "content": bodies[key]}
            for status in _FAILURES.get(key, ()):
                responses[str(status)] = failure
            # every other status: unknown users and items, conflicts, a full disk, an error of the service
            responses["default"] = failure
            if key in _FURTHER:
                status, description, _ = _FURTHER[key]
                responses[str(status.value)] = {"description": description, "content": others[key]}
            for parameter in route.get("parameters", ()):
                parameter["schema"] = _PARAMETERS.get(parameter["name"], parameter["schema"])
            if path == "/metrics":
                responses["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    components["WireItem"]["additionalProperties"] = {"$ref": "#/components/schemas/Attribute"}
    return schema | {"paths": paths, "components": {"schemas": components | {"Attribute": _ATTRIBUTE}}}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}

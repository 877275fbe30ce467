"""OpenAPI description: request and answer types of every route, from the types that are encoded."""

from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI

from ...engine.results import Health, IngestReport, Recommendation, Refusal, TrainReport, VersionInfo
from . import wire

__all__ = ["describe"]


class WireEvent(msgspec.Struct, rename={"time_ms": "time"}):
    """One event; a record with `user` and `"forget": true` erases the user instead."""

    user: str | int
    item: str | int
    time_ms: int | str
    type: str | None = None
    weight: float | None = None
    id: str | int | None = None


class WireItem(msgspec.Struct):
    """One catalogue record; further fields are kept as attributes."""

    item: str | int
    title: str | None = None
    categories: list[str] = []
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
_BODIES: dict[tuple[str, str], Any] = {
    ("post", "/v1/events"): WireEvent | list[WireEvent],
    ("post", "/v1/items"): WireItem | list[WireItem],
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
            # every other status: unknown users and items, conflicts, a full disk, an error of the service
            responses["default"] = failure
            if key in _FURTHER:
                status, description, _ = _FURTHER[key]
                responses[str(status.value)] = {"description": description, "content": others[key]}
            if path == "/metrics":
                responses["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return schema | {"paths": paths, "components": {"schemas": components}}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}

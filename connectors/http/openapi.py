"""The OpenAPI description: request and answer types of every route, from the types that are encoded."""

from typing import Any

import msgspec
from fastapi import FastAPI

from ...engine.results import IngestReport, Recommendation, VersionInfo
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
    ("post", "/v1/versions/{number}/rollback"): list[VersionInfo],
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
    types = [*_ANSWERS.values(), *_BODIES.values(), wire.Failure]
    shapes, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    answers = dict(zip(_ANSWERS, shapes[: len(_ANSWERS)], strict=True))
    bodies = dict(zip(_BODIES, shapes[len(_ANSWERS) : -1], strict=True))
    failure = {"description": "Not done, and why", "content": {"application/json": {"schema": shapes[-1]}}}
    paths = {path.replace(":path}", "}"): routes for path, routes in schema["paths"].items()}
    for path, routes in paths.items():
        for method, route in routes.items():
            key = (method, path)
            if key in answers:
                route["responses"]["200"]["content"] = {"application/json": {"schema": answers[key]}}
            if key in bodies or "422" in route["responses"]:
                route["responses"]["422"] = failure
            if key in bodies:
                route["requestBody"] = {"required": True, "content": {"application/json": {"schema": bodies[key]}}}
    return schema | {"paths": paths, "components": {"schemas": components}}

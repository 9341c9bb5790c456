"""The API's OpenAPI description, for drf-spectacular.

Importing this needs drf-spectacular and registers the description with it; the app does so where that is installed.
The description is written down rather than guessed from the views; a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry, ResolvedComponent

from ..base import NowhereViewSet
from .answers import ANSWERS
from .bodies import BODIES
from .calls import CALLS, operation
from .schemas import Schema

#: Every component by its name.
COMPONENTS = {**ANSWERS, **BODIES}

VIEWS = (
    "sessions.SessionViewSet",
    "sessions.ExportViewSet",
    "messages.MessageViewSet",
    "messages.EventViewSet",
    "runs.RunViewSet",
    "streams.StreamViewSet",
    "agents.QueryViewSet",
    "agents.NoAgentViewSet",
    "operators.HealthViewSet",
    "operators.MetricsViewSet",
    "base.NowhereViewSet",
)


class ChatSchema(AutoSchema):
    """Describes our views by what is written down about them."""

    def get_operation(
        self, path: str, path_regex: str, path_prefix: str, method: str, registry: ComponentRegistry
    ) -> Schema | None:
        """Return one call's description; paths that are no route have none."""
        if isinstance(self.view, NowhereViewSet):
            return None
        self.registry, self.path, self.method = registry, path, method.upper()
        self.path_regex, self.path_prefix = path_regex, path_prefix
        said = operation(CALLS[type(self.view).__name__, str(vars(self.view)["action"])], re.findall(r"{(\w+)}", path))
        for name in _mentioned(said):
            _register(registry, name)
        security = self.get_auth()
        return said | ({"security": security} if security else {})


def _register(registry: ComponentRegistry, name: str) -> None:
    component = ResolvedComponent(  # type: ignore[no-untyped-call]
        name=name, type=ResolvedComponent.SCHEMA, object=name
    )
    if component in registry:
        return
    component.schema = COMPONENTS[name]()
    registry.register(component)
    for further in _mentioned(component.schema):
        _register(registry, further)


def _mentioned(said: Any) -> Iterator[str]:
    """Yield the names of the components that a description refers to."""
    if isinstance(said, dict):
        if isinstance(said.get("$ref"), str):
            yield said["$ref"].rpartition("/")[2]
        for inner in said.values():
            yield from _mentioned(inner)
    elif isinstance(said, list):
        for inner in said:
            yield from _mentioned(inner)


def _replacement(extension: OpenApiViewExtension) -> type[Any]:
    target: Any = extension.target_class
    return type(target.__name__, (target,), {"schema": ChatSchema()})


for _view in VIEWS:
    _path = f"{__name__.rpartition('.')[0]}.{_view}"
    type(
        f"{_view.rpartition('.')[2]}Extension",
        (OpenApiViewExtension,),
        {"target_class": _path, "view_replacement": _replacement},
    )

"""Who may do what no owner may by owning."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from ..choices import Role
from ..exceptions import PermissionRefused

WRITE_ANY_ROLE = "chat_sessions.write_any_role"
VIEW_ALL_SESSIONS = "chat_sessions.view_all_sessions"
VIEW_METRICS = "chat_sessions.view_metrics"


class MayViewMetrics(BasePermission):
    """Staff with the permission for the metrics."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Tell whether the caller is."""
        return is_staff_with(request.user, VIEW_METRICS)


def may_write(user: Any, role: str) -> bool:
    """Tell whether a caller may write in a role: their own, or any with the permission."""
    return role == Role.USER or may(user, WRITE_ANY_ROLE)


def may(user: Any, permission: str) -> bool:
    """Tell whether a caller has a permission; a user model may know of none."""
    has_perm = getattr(user, "has_perm", None)
    return bool(has_perm and has_perm(permission))


def is_staff_with(user: Any, permission: str) -> bool:
    """Tell whether a caller is staff and has a permission."""
    return bool(getattr(user, "is_staff", False)) and may(user, permission)


def check_may_list(user: Any) -> None:
    """Refuse a list of other people's sessions.

    Raises:
        PermissionRefused: the caller is no staff with the permission.
    """
    if not is_staff_with(user, VIEW_ALL_SESSIONS):
        raise PermissionRefused

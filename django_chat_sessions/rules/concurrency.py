"""What a newcomer tab gets, and which tab may write."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

from ..choices import Strategy
from ..exceptions import ClientConflict, InvalidRequest


class AnyClient(Enum):
    """The server itself: an agent, the admin, a task. It speaks for no tab and is bound by none."""

    ANY = "any"


ANY: Final = AnyClient.ANY

#: Who acts: the name that a tab gave, none where it gave none, or the server itself.
Client = str | None | Literal[AnyClient.ANY]

#: Strategies under which a tab must name itself.
NEEDS_CLIENT = frozenset({Strategy.PER_TAB, Strategy.ACTIVE_TAB_WINS})


def check_named(strategy: str, client: Client) -> None:
    """Refuse a nameless tab where the strategy needs a name.

    Raises:
        InvalidRequest: naming ``client``.
    """
    if strategy in NEEDS_CLIENT and not client:
        raise InvalidRequest({"client": ["This session needs the client's name in the header X-Chat-Client."]})


def check_control(strategy: str, controlling: str | None, client: Client) -> None:
    """Refuse a write by a tab that is not in control.

    Raises:
        InvalidRequest: the tab gave no name and the strategy needs one.
        ClientConflict: another tab is in control.
    """
    if client is ANY:
        return
    check_named(strategy, client)
    if strategy in NEEDS_CLIENT and controlling != client:
        raise ClientConflict


def slot(strategy: str, client: Client) -> str | None:
    """Return the place that an opening wants: one live session a place; None where there are no places."""
    if strategy == Strategy.MULTIPLE:
        return None
    if strategy == Strategy.PER_TAB:
        return str(client)
    return ""


def takes_control(strategy: str, controlling: str | None, client: Client) -> bool:
    """Tell whether the control passes to a tab that opens or resumes."""
    return strategy == Strategy.ACTIVE_TAB_WINS and client is not ANY and controlling != client

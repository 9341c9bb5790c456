"""Lists that cost the same over ten rows and over ten million."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Page, Paginator
from django.db import router
from django.utils.functional import cached_property

from .. import dialects
from ..models import ChatSession

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import Model, QuerySet
    from django.http import HttpRequest

    M = TypeVar("M", bound=Model)

#: Rows that a list counts and pages through; whoever wants what is further down narrows the list.
LIST_LIMIT = 5_000

#: Of a question that no index answers: how many of the newest rows it is asked of.
WINDOW = 500_000

_instants: WeakKeyDictionary[HttpRequest, datetime] = WeakKeyDictionary()


def instant(request: HttpRequest) -> datetime:
    """Return the instant at which everything on a page is told: the database's, asked once a request."""
    if request not in _instants:
        _instants[request] = dialects.now(router.db_for_read(ChatSession))
    return _instants[request]


def newest(rows: QuerySet[M]) -> QuerySet[M]:
    """Return these rows as far as they are among the newest ``WINDOW`` of their table."""
    table = rows.model._base_manager.using(rows.db)
    last: int = table.order_by("-pk").values_list("pk", flat=True).first() or 0
    return rows.filter(pk__gt=last - WINDOW)


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts and pages through the first ``LIST_LIMIT`` rows, with one query for keys and one for a page."""

    limit = LIST_LIMIT

    @cached_property
    def _keys(self) -> list[Any]:
        # One pass along the list's own order: a count of its own would walk a rare filter's whole table once more.
        rows: Any = self.object_list
        return list(rows.values_list("pk", flat=True)[: self.limit + 1])

    @cached_property
    def count(self) -> int:
        """How many rows there are to page through."""
        return min(len(self._keys), self.limit)

    @property
    def is_cut_off(self) -> bool:
        """Whether there are more."""
        return len(self._keys) > self.limit

    def page(self, number: int | str) -> Page[Any]:
        """Return one page."""
        number = self.validate_number(number)
        start = (number - 1) * self.per_page
        keys = self._keys[: self.count][start : start + self.per_page]
        rows: Any = self.object_list
        return Page(rows.filter(pk__in=keys), number, self)


class BoundedChangeList(ChangeList):
    """A change list that takes every page, a lone one too, from its paginator."""

    def get_filters(self, request: HttpRequest) -> Any:
        """Refuse what PostgreSQL refuses with an error of its own."""
        if any("\0" in value for values in self.filter_params.values() for value in values):
            raise IncorrectLookupParameters
        return super().get_filters(request)

    def get_results(self, request: HttpRequest) -> None:
        """Give even a single page by its keys, so that a rare filter is walked once."""
        super().get_results(request)
        if not self.query:  # Django offers "Show all" wherever it has not counted the whole table
            self.full_result_count = self.result_count
        if not self.multi_page:
            self.result_list = self.paginator.page(1).object_list

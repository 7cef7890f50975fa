"""Mixins with the actions create, list, retrieve, update, patch and delete."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rest_framework import status

from pgobserve._consumer.calls import refuse_reserved
from pgobserve._former_names import resolver
from pgobserve.decorators import action
from pgobserve.settings import from_setting

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from rest_framework.serializers import BaseSerializer

    from pgobserve.generics import GenericAsyncAPIConsumer as _Base
    from pgobserve.pagination import WebsocketLimitOffsetPagination
else:
    _Base = object

Reply = tuple[Any, int]


class CreateModelMixin(_Base):
    """The action ``create``."""

    @action()
    def create(self, data: Any, **kwargs: Any) -> Reply:
        """Create a row from ``data``, and reply with it."""
        refuse_reserved(kwargs, "serializer")
        serializer = self.get_serializer(data=data, action_kwargs=kwargs)
        serializer.is_valid(raise_exception=True)
        self.perform_create(serializer, **kwargs)
        return serializer.data, status.HTTP_201_CREATED

    def perform_create(self, serializer: BaseSerializer[Any], **kwargs: Any) -> None:
        """Save; override to add values."""
        serializer.save()


class ListModelMixin(_Base):
    """The action ``list``."""

    @action()
    def list(self, **kwargs: Any) -> Reply:
        """Reply with all rows."""
        refuse_reserved(kwargs, "queryset")
        queryset = self.filter_queryset(self.get_queryset(**kwargs), **kwargs)
        serializer = self.get_serializer(instance=queryset, many=True, action_kwargs=kwargs)
        return serializer.data, status.HTTP_200_OK


class RetrieveModelMixin(_Base):
    """The action ``retrieve``."""

    @action()
    def retrieve(self, **kwargs: Any) -> Reply:
        """Reply with the row that the message names."""
        instance = self.get_object(**kwargs)
        serializer = self.get_serializer(instance=instance, action_kwargs=kwargs)
        return serializer.data, status.HTTP_200_OK


class UpdateModelMixin(_Base):
    """The action ``update``."""

    @action()
    def update(self, data: Any, **kwargs: Any) -> Reply:
        """Replace the row that the message names with ``data``."""
        serializer = _changed(self, data, kwargs, partial=False)
        self.perform_update(serializer, **kwargs)
        return _shown(serializer), status.HTTP_200_OK

    def perform_update(self, serializer: BaseSerializer[Any], **kwargs: Any) -> None:
        """Save; override to add values."""
        serializer.save()


class PatchModelMixin(_Base):
    """The action ``patch``."""

    @action()
    def patch(self, data: Any, **kwargs: Any) -> Reply:
        """Change the fields in ``data`` of the row that the message names."""
        serializer = _changed(self, data, kwargs, partial=True)
        self.perform_patch(serializer, **kwargs)
        return _shown(serializer), status.HTTP_200_OK

    def perform_patch(self, serializer: BaseSerializer[Any], **kwargs: Any) -> None:
        """Save; override to add values."""
        serializer.save()


class DeleteModelMixin(_Base):
    """The action ``delete``."""

    @action()
    def delete(self, **kwargs: Any) -> tuple[None, int]:
        """Delete the row that the message names."""
        instance = self.get_object(**kwargs)
        self.perform_delete(instance, **kwargs)
        return None, status.HTTP_204_NO_CONTENT

    def perform_delete(self, instance: Any, **kwargs: Any) -> None:
        """Delete; override to do something else."""
        instance.delete()


class PaginatedModelListMixin(ListModelMixin):
    """
    The action ``list``, page by page.

    Attributes:
        pagination_class: The paginator; without it, or without a limit, the reply is the whole list.
    """

    pagination_class: type[WebsocketLimitOffsetPagination] | None = from_setting(
        "DEFAULT_PAGINATION_CLASS"
    )
    _paginator: WebsocketLimitOffsetPagination | None

    @action()
    def list(self, **kwargs: Any) -> Reply:
        """Reply with the page that ``limit`` and ``offset`` name."""
        refuse_reserved(kwargs, "queryset", "view")
        queryset = self.filter_queryset(self.get_queryset(**kwargs), **kwargs)
        page = self.paginate_queryset(queryset, **kwargs)
        rows = queryset if page is None else page
        data = self.get_serializer(instance=rows, many=True, action_kwargs=kwargs).data
        return data if page is None else self.get_paginated_response(data), status.HTTP_200_OK

    @property
    def paginator(self) -> WebsocketLimitOffsetPagination | None:
        """The paginator of this socket, if there is a ``pagination_class``."""
        if not hasattr(self, "_paginator"):
            self._paginator = None if self.pagination_class is None else self.pagination_class()
        return self._paginator

    def paginate_queryset(self, queryset: QuerySet[Any], **kwargs: Any) -> Any:
        """Return the rows of the page; None without pagination."""
        if self.paginator is None:
            return None
        return self.paginator.paginate_queryset(queryset, self.scope, view=self, **kwargs)

    def get_paginated_response(self, data: Any) -> Any:
        """Return the reply for a page of serialized rows."""
        if self.paginator is None:
            raise AssertionError("There is no `pagination_class` to make a page's reply.")
        return self.paginator.get_paginated_response(data)


class StreamedPaginatedListMixin(PaginatedModelListMixin):
    """
    The action ``list``, which sends all pages one after the other, each in a reply.

    It runs detached: the socket handles other messages meanwhile, such as ``list_cancel``.

    Attributes:
        sleep_time_between_pages: Seconds between two pages.
    """

    sleep_time_between_pages: float = 0

    @action(detached=True)
    async def list(self, action: str, request_id: Any = None, **kwargs: Any) -> None:
        """Reply with each page in turn."""
        while True:
            data, code = await super().list(action=action, request_id=request_id, **kwargs)
            await self.reply(action=action, data=data, status=code, request_id=request_id)
            if not isinstance(data, dict):
                return
            following = data["offset"] + data["limit"]
            if following >= data["count"]:
                return
            kwargs["offset"] = following
            await asyncio.sleep(self.sleep_time_between_pages)

    @action()
    async def list_cancel(self, **kwargs: Any) -> tuple[None, int]:
        """Cancel the lists that this socket is streaming."""
        await self.cancel_detached("list")
        return None, status.HTTP_200_OK


def _changed(
    consumer: _Base, data: Any, kwargs: dict[str, Any], *, partial: bool
) -> BaseSerializer[Any]:
    refuse_reserved(kwargs, "serializer")
    instance = consumer.get_object(data=data, **kwargs)
    serializer = consumer.get_serializer(
        instance=instance, data=data, action_kwargs=kwargs, partial=partial
    )
    serializer.is_valid(raise_exception=True)
    return serializer


def _shown(serializer: BaseSerializer[Any]) -> Any:
    # Rows that were prefetched before the change may be stale.
    if getattr(serializer.instance, "_prefetched_objects_cache", None):
        serializer.instance._prefetched_objects_cache = {}  # type: ignore[union-attr]
    return serializer.data


__getattr__ = resolver(__name__)

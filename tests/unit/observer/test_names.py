"""Names that code written for djangochannelsrestframework binds to."""

from __future__ import annotations

import importlib

import pytest

#: The names of DCRF 1.3's modules, those that it only imports included; projects import some of them there.
NAMES = {
    "consumers": (
        "AND APIConsumerMetaclass APIException ActionMissingException AsyncAPIConsumer "
        "AsyncJsonWebsocketConsumer BasePermission DRFBasePermission DjangoViewAsConsumer "
        "Http404 HttpRequest HttpResponse MethodNotAllowed NOT OR PermissionDenied "
        "Response SimpleTemplateResponse WrappedDRFPermission api_settings "
        "database_sync_to_async ensure_async request_from_scope view_as_consumer"
    ),
    "decorators": "AsyncAPIConsumer action database_sync_to_async detached settings transaction",
    "exceptions": "APIException ActionMissingException MethodNotAllowed status",
    "generics": (
        "AsyncAPIConsumer GenericAsyncAPIConsumer Model QuerySet Serializer get_object_or_404"
    ),
    "mixins": (
        "CreateModelMixin DeleteModelMixin ListModelMixin PaginatedModelListMixin "
        "PatchModelMixin RetrieveModelMixin ReturnDict ReturnList "
        "StreamedPaginatedListMixin UpdateModelMixin action api_settings status"
    ),
    "observer": "Model ModelObserver Observer Serializer Signal model_observer observer",
    "observer.base_observer": "AsyncAPIConsumer BaseObserver ObjPartial",
    "observer.generics": (
        "APIConsumerMetaclass GenericAsyncAPIConsumer Model ModelObserver "
        "ObserverAPIConsumerMetaclass ObserverConsumerMixin ObserverModelInstanceMixin "
        "RetrieveModelMixin _GenericModelObserver action database_sync_to_async status"
    ),
    "observer.model_observer": (
        "Action BaseObserver Model ModelObserver ModelObserverInstanceState Serializer "
        "UnsupportedWarning async_to_sync get_channel_layer m2m_changed post_delete "
        "post_init post_save transaction"
    ),
    "observer.observer": "BaseObserver Observer Signal async_to_sync get_channel_layer",
    "observer.utils": "ObjPartial",
    "pagination": (
        "LimitOffsetPagination ReturnDict ReturnList WebsocketLimitOffsetPagination api_settings"
    ),
    "permissions": (
        "AND AllowAny AsyncConsumer BasePermission BasePermissionMetaclass "
        "DRFBasePermission IsAuthenticated NOT OR OperandHolder OperationHolderMixin "
        "SingleOperandHolder WrappedDRFPermission ensure_async request_from_scope"
    ),
    "scope_utils": "HttpRequest database_sync_to_async ensure_async request_from_scope",
    "settings": (
        "APISettings DEFAULTS IMPORT_STRINGS api_settings perform_import "
        "reload_api_settings setting_changed settings"
    ),
}


@pytest.mark.parametrize("module", NAMES)
def test_names(module: str) -> None:
    """Each module of DCRF's has all names that it has there."""
    found = importlib.import_module(f"pgobserve.{module}")

    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []
    assert not hasattr(found, "no_such_name")


def test_decorators_stay() -> None:
    """Importing a module does not put it in the place of the decorator of the same name."""
    importlib.import_module("pgobserve.observer.model_observer")
    importlib.import_module("pgobserve.observer.observer")
    package = importlib.import_module("pgobserve.observer")

    assert callable(package.model_observer)
    assert callable(package.observer)

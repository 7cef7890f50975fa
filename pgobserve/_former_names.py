"""
Names that DCRF's modules have only because they import them.

Projects import some of them from there. Each of our modules at a path of DCRF's resolves them when they are
first used, so that they cost no import and make no cycle.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_HOMES: Final = {
    "asgiref.sync": ("async_to_sync",),
    "channels.consumer": ("AsyncConsumer",),
    "channels.db": ("database_sync_to_async",),
    "channels.generic.websocket": ("AsyncJsonWebsocketConsumer",),
    "channels.layers": ("get_channel_layer",),
    "django.conf": ("settings",),
    "django.core.signals": ("setting_changed",),
    "django.db": ("transaction",),
    "django.db.models": ("Model", "QuerySet"),
    "django.db.models.signals": ("m2m_changed", "post_delete", "post_init", "post_save"),
    "django.dispatch": ("Signal",),
    "django.http": ("Http404", "HttpRequest", "HttpResponse"),
    "django.template.response": ("SimpleTemplateResponse",),
    "rest_framework": ("status",),
    "rest_framework.exceptions": ("APIException", "MethodNotAllowed", "PermissionDenied"),
    "rest_framework.generics": ("get_object_or_404",),
    "rest_framework.pagination": ("LimitOffsetPagination",),
    "rest_framework.permissions": ("AND", "NOT", "OR"),
    "rest_framework.response": ("Response",),
    "rest_framework.serializers": ("Serializer",),
    "rest_framework.settings": ("perform_import",),
    "rest_framework.utils.serializer_helpers": ("ReturnDict", "ReturnList"),
    "pgobserve.consumers": ("APIConsumerMetaclass", "AsyncAPIConsumer"),
    "pgobserve.decorators": ("action",),
    "pgobserve.exceptions": ("ActionMissingException",),
    "pgobserve.mixins": ("RetrieveModelMixin",),
    "pgobserve.observer.base_observer": ("BaseObserver",),
    "pgobserve.observer.utils": ("ObjPartial",),
    "pgobserve.permissions": ("BasePermission", "WrappedDRFPermission"),
    "pgobserve.scope_utils": ("ensure_async", "request_from_scope"),
    "pgobserve.settings": ("api_settings",),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


def resolver(module: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module."""

    def resolve(name: str) -> Any:
        if name == "DRFBasePermission":
            return import_module("rest_framework.permissions").BasePermission
        if name not in _HOME_OF or _HOME_OF[name] == module:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(import_module(_HOME_OF[name]), name)

    return resolve

"""Django views over a socket."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.utils.functional import SimpleLazyObject
from django.views.decorators.csrf import csrf_protect
from rest_framework import authentication, serializers, viewsets
from rest_framework import permissions as drf
from rest_framework.decorators import api_view
from rest_framework.response import Response
from rest_framework.views import APIView

from pgobserve.consumers import DjangoViewAsConsumer, view_as_consumer
from pgobserve.permissions import IsAuthenticated
from tests.sockets import connected, reply

ALICE = SimpleNamespace(pk=1, username="alice", is_authenticated=True, is_active=True)
BOB = SimpleNamespace(pk=2, username="bob", is_authenticated=True, is_active=True)


class Body(serializers.Serializer[Any]):
    name = serializers.CharField()


class Echo(APIView):
    """Shows what reached it."""

    authentication_classes = (authentication.SessionAuthentication,)
    permission_classes = ()

    def respond(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        shown = {
            "method": request.method,
            "query": dict(request.query_params.lists()),
            "data": request.data,
            "kwargs": kwargs,
            "user": getattr(request.user, "username", ""),
        }
        return Response(shown)

    get = put = patch = delete = post = respond


class Create(APIView):
    authentication_classes = ()
    permission_classes = ()

    def put(self, request: Any) -> Response:
        body = Body(data=request.data)
        body.is_valid(raise_exception=True)
        return Response(body.data, status=201)


async def test_message_reaches_the_view() -> None:
    """Query, parameters and data of a message reach a DRF view as a request's would."""
    async with connected(view_as_consumer(Echo.as_view())) as client:
        answer = await client.ask(
            "update",
            request_id=1,
            query={"a": "x", "b": [1, 2]},
            parameters={"pk": 5},
            data={"name": "ü"},
        )
        assert answer == reply(
            "update",
            {
                "method": "PATCH",
                "query": {"a": ["x"], "b": [1, 2]},
                "data": {"name": "ü"},
                "kwargs": {"pk": 5},
                "user": "",
            },
            request_id=1,
        )


@pytest.mark.parametrize(
    ("name", "method"),
    [("create", "PUT"), ("update", "PATCH"), ("list", "GET"), ("retrieve", "GET")],
)
async def test_default_methods(name: str, method: str) -> None:
    """Four actions have HTTP methods by default."""
    async with connected(view_as_consumer(Echo.as_view())) as client:
        assert (await client.ask(name))["data"]["method"] == method


@pytest.mark.parametrize("name", ["delete", "zork", "call_view"])
async def test_other_actions_are_405(name: str) -> None:
    """An action without an HTTP method is 405."""
    async with connected(view_as_consumer(Echo.as_view())) as client:
        assert await client.ask(name, request_id=1) == reply(
            name, errors=[f'Method "{name}" not allowed.'], status=405, request_id=1
        )


async def test_mapped_actions_replace_the_default() -> None:
    """Own actions replace the default ones, and reach the methods of a view set."""

    class Pets(viewsets.ViewSet):
        authentication_classes = ()
        permission_classes = ()

        def list(self, request: Any) -> Response:
            return Response(["rex"])

        def destroy(self, request: Any, pk: int) -> Response:
            return Response(status=204)

    application = view_as_consumer(
        Pets.as_view({"get": "list", "delete": "destroy"}),
        mapped_actions={"pets": "get", "bury": "DELETE"},
    )
    async with connected(application) as client:
        assert (await client.ask("pets"))["data"] == ["rex"]
        assert (await client.ask("bury", parameters={"pk": 1}))["response_status"] == 204
        assert (await client.ask("list"))["response_status"] == 405


async def test_data_is_validated_by_the_view() -> None:
    """A view that creates gets the data; a refusal is in the reply's data, its errors are empty."""
    async with connected(view_as_consumer(Create.as_view())) as client:
        assert await client.ask("create", data={"name": "a"}) == reply(
            "create", {"name": "a"}, status=201
        )
        assert await client.ask("create", data={}) == reply(
            "create", {"name": ["This field is required."]}, status=400
        )


async def test_sockets_do_not_share_a_consumer() -> None:
    """Each socket's request is answered on that socket, with that socket's user."""
    application = view_as_consumer(Echo.as_view())
    async with connected(application, user=ALICE) as alice, connected(application, user=BOB) as bob:
        await bob.send(action="list", request_id="b")
        await alice.send(action="list", request_id="a")
        first, second = await alice.frame(), await bob.frame()
    assert (first["request_id"], first["data"]["user"]) == ("a", "alice")
    assert (second["request_id"], second["data"]["user"]) == ("b", "bob")


@pytest.mark.parametrize("name", ["create", "update"])
async def test_session_authentication_asks_for_no_csrf_token(name: str) -> None:
    """A view with session authentication accepts writes of the socket's user."""
    async with connected(view_as_consumer(Echo.as_view()), user=ALICE) as client:
        answer = await client.ask(name, data={"a": 1})
        assert (answer["response_status"], answer["data"]["user"]) == (200, "alice")


async def test_user_of_the_socket_is_the_user_of_any_drf_view() -> None:
    """A view sees the socket's user whatever authentication classes it has."""

    class Guarded(Echo):
        authentication_classes = (authentication.BasicAuthentication,)  # type: ignore[assignment]
        permission_classes = (drf.IsAuthenticated,)  # type: ignore[assignment]

    application = view_as_consumer(Guarded.as_view())
    async with connected(application, user=ALICE) as client:
        assert (await client.ask("list"))["data"]["user"] == "alice"
    async with connected(application) as client:
        assert (await client.ask("list"))["response_status"] == 401


async def test_user_may_be_looked_up_late() -> None:
    """A user that is looked up only when he is needed is looked up in a thread."""

    def look_up() -> Any:
        assert threading.current_thread() is not threading.main_thread()
        return ALICE

    async with connected(
        view_as_consumer(Echo.as_view()), user=SimpleLazyObject(look_up)
    ) as client:
        assert (await client.ask("list"))["data"]["user"] == "alice"


async def test_function_views() -> None:
    """Function views work: Django's, DRF's, asynchronous ones and CSRF-protected ones."""

    @csrf_protect
    def plain(request: Any) -> JsonResponse:
        return JsonResponse({"posted": json.loads(request.POST), "body": json.loads(request.body)})

    @api_view(["PUT"])
    def theirs(request: Any) -> Response:
        return Response(request.data)

    async def later(request: Any) -> HttpResponse:
        return HttpResponse("later")

    async with connected(view_as_consumer(plain)) as client:
        answer = await client.ask("create", data={"a": 1})
        assert json.loads(answer["data"]) == {"posted": {"a": 1}, "body": {"a": 1}}
    async with connected(view_as_consumer(theirs)) as client:
        assert (await client.ask("create", data=[1]))["data"] == [1]
    async with connected(view_as_consumer(later)) as client:
        assert (await client.ask("list"))["data"] == "later"


@pytest.mark.parametrize(
    ("response", "shown"),
    [
        (HttpResponse("text"), "text"),
        (HttpResponse(b"\xff\xfe"), "fffe"),
        (StreamingHttpResponse([b"a", b"b"]), "ab"),
        (HttpResponse(status=204), ""),
    ],
    ids=["text", "binary", "stream", "empty"],
)
async def test_other_responses(response: Any, shown: str) -> None:
    """A response without data is shown as its text, or as hexadecimal digits."""
    async with connected(view_as_consumer(lambda request: response)) as client:
        answer = await client.ask("list")
        assert (answer["data"], answer["response_status"]) == (shown, response.status_code)


@pytest.mark.parametrize(
    "message",
    [
        {"query": 5},
        {"query": [1]},
        {"parameters": 5},
        {"parameters": {"request": 1}},
        {"parameters": {"self": 1}},
    ],
    ids=str,
)
async def test_what_can_not_be_a_request_is_400(message: dict[str, Any]) -> None:
    """A query or parameters that no request could have are 400 and the socket lives."""
    async with connected(view_as_consumer(Echo.as_view())) as client:
        assert (await client.ask("list", **message))["response_status"] == 400
        assert (await client.ask("list"))["response_status"] == 200


async def test_view_that_raises_is_500() -> None:
    """A view that raises is 500 and the socket lives."""

    def broken(request: Any) -> HttpResponse:
        raise RuntimeError("secret")

    async with connected(view_as_consumer(broken)) as client:
        for _ in range(2):
            assert await client.ask("list", request_id=1) == reply(
                "list", errors=["Internal server error."], status=500, request_id=1
            )


async def test_subclass_with_permissions_and_arguments() -> None:
    """A subclass may have permissions and decide on the view's arguments."""

    class Pets(DjangoViewAsConsumer):
        view = Echo.as_view()
        actions = {"list": "GET"}
        permission_classes = (IsAuthenticated,)

        def get_view_args(self, action: str, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
            return [], {"pk": kwargs["id"]}

    async with connected(Pets.as_asgi()) as client:
        assert (await client.ask("list", id=1))["response_status"] == 403
    async with connected(Pets.as_asgi(), user=ALICE) as client:
        assert (await client.ask("list", id=1))["data"]["kwargs"] == {"pk": 1}

"""The tutorial's consumer, word for word but for the package's name."""

from __future__ import annotations

from django.contrib.auth.models import User

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin
from tests.project.serializers import UserSerializer


class UserConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = User.objects.all()
    serializer_class = UserSerializer

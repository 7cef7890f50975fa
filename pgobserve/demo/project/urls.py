from __future__ import annotations

from django.urls import path

from pgobserve.demo.project import views

urlpatterns = [path("", views.page), path("sql/", views.run)]

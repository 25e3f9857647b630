"""Where things are."""

from django.urls import path

from .tools import server

urlpatterns = [path("mcp", server.django_view())]

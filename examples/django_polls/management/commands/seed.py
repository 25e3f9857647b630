"""`seed`: two users and a poll to try things out with."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from ...auth import make_token
from ...models import Choice, Question


class Command(BaseCommand):
    help = "Make two users and a poll, and print the users' tokens."

    def handle(self, *args: Any, **options: Any) -> None:
        question = Question.objects.create(text="Tea or coffee?")
        Choice.objects.bulk_create([Choice(question=question, text="Tea"), Choice(question=question, text="Coffee")])
        for name in ("ann", "bob"):
            user = get_user_model().objects.create_user(name)
            self.stdout.write(f"{name}: {make_token(user)}")

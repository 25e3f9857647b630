"""What a language model can do with the polls: anybody reads, users vote."""

from __future__ import annotations

from django.db import IntegrityError, transaction
from django.db.models import Count

from minimcp import Context, Server, ToolError

from .models import Choice, Question, Vote

server = Server("django-polls", "1.0", instructions="List the polls, then vote; the user confirms every vote.")


@server.tool(annotations={"readOnlyHint": True})
def polls() -> list[dict]:
    """List the questions, with the votes that each choice has."""
    return [
        {
            "question": question.pk,
            "text": question.text,
            "votes": {
                choice.text: choice.total for choice in question.choices.annotate(total=Count("votes")).order_by("pk")
            },
        }
        for question in Question.objects.order_by("pk")
    ]


@server.tool(allow=lambda ctx: ctx.principal is not None, annotations={"destructiveHint": False})
def vote(question: int, choice: str, ctx: Context) -> dict:
    """Vote in a poll, once the user has confirmed it; nobody votes twice.

    Args:
        question: the number of the question, as `polls` has it
        choice: the text of the choice
    """
    try:
        chosen = Choice.objects.select_related("question").get(question=question, text__iexact=choice)
    except Choice.DoesNotExist:
        raise ToolError("There is no such choice; call polls for what there is") from None
    answer = ctx.elicit(f'Vote "{chosen}" on "{chosen.question}"?', {"sure": bool})
    if not answer.get("sure"):
        return {"voted": False}
    user = ctx.request["django.request"].user
    try:
        with transaction.atomic():
            Vote.objects.create(user=user, question=chosen.question, choice=chosen)
    except IntegrityError:
        raise ToolError(f"{user} has voted on this question already") from None
    return {"voted": True, "user": ctx.principal.id, "choice": chosen.text}

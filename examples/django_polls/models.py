"""Questions, their choices, and who voted for what."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Question(models.Model):
    text = models.CharField(max_length=200)

    def __str__(self) -> str:
        return self.text


class Choice(models.Model):
    question = models.ForeignKey(Question, models.CASCADE, related_name="choices")
    text = models.CharField(max_length=200)

    def __str__(self) -> str:
        return self.text


class Vote(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    question = models.ForeignKey(Question, models.CASCADE)
    choice = models.ForeignKey(Choice, models.CASCADE, related_name="votes")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "question"], name="one_vote_each")]

    def __str__(self) -> str:
        return f"{self.user}: {self.choice}"

"""What a topic holds, and what the folder's projections make of it; read-only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrator.kafka import topics
from migrator.kafka.topics import Policy, TopicRange
from migrator.projections import registry
from migrator.projections.definition import Definition
from migrator.projections.events import TOMBSTONE
from migrator.projections.survey import Kind, Survey, survey

if TYPE_CHECKING:
    from migrator.settings import Settings


@dataclass(frozen=True)
class Contents:
    """A survey of a topic beside the definitions that read it; `written` has open transactions, too."""

    topic: TopicRange
    policy: Policy | None
    written: dict[int, int]
    survey: Survey
    definitions: Sequence[Definition]

    @property
    def kinds(self) -> list[Kind]:
        """The event types, the commonest first."""
        return sorted(self.survey.kinds.values(), key=lambda kind: (-kind.events, kind.type))

    @property
    def projections(self) -> list[str]:
        return [each.name for each in self.definitions]

    def handlers(self, event_type: str) -> list[str]:
        """Who folds the type; a tombstone deletes a row unless it is ignored."""
        return [
            each.name
            for each in self.definitions
            if event_type in each.handlers
            or (event_type == TOMBSTONE and event_type not in each.ignores)
        ]

    def ignorers(self, event_type: str) -> list[str]:
        return [each.name for each in self.definitions if event_type in each.ignores]

    @property
    def unhandled(self) -> list[str]:
        """The types that some projection of the topic neither folds nor ignores."""
        return [
            kind.type
            for kind in self.kinds
            if len(self.handlers(kind.type)) + len(self.ignorers(kind.type))
            < max(len(self.definitions), 1)
        ]


def look(settings: Settings, name: str, *, everything: bool) -> Contents:
    """Look at the topic: at a sample, or at everything.

    Raises:
        UsageError: there is no such topic.
        MigratorError: it cannot be read.
    """
    kafka = settings.kafka_config
    topic = topics.describe(kafka, name)
    definitions = _definitions(settings, name)
    events = None if everything else settings.projections.sample_events
    return Contents(
        topic,
        topics.policy(kafka, name),
        topics.written(kafka, topic),
        survey(settings, topic, definitions, events=events),
        definitions,
    )


def _definitions(settings: Settings, name: str) -> list[Definition]:
    if not settings.projections_dir.is_dir():
        return []
    known = registry.load(settings.projections_dir).values()
    return [each.definition for each in known if name in each.definition.topics]

"""What Neon's API answers, as far as migrator reads it; unknown fields and values are let through."""

from __future__ import annotations

from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

DONE = frozenset({"finished", "skipped"})
# `failed` is not among them: Neon may try such an operation again.
LOST = frozenset({"error", "cancelled"})


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class RestrictedAction(_Model):
    name: str
    reason: str = ""


class Branch(_Model):
    """A branch; `annotation` is what its maker said about it, where the call answers that."""

    id: str
    project_id: str
    name: str
    parent_id: str | None = None
    parent_lsn: str | None = None
    current_state: str = "ready"
    default: bool = False
    protected: bool = False
    created_at: AwareDatetime
    expires_at: datetime | None = None
    logical_size: int | None = None
    restricted_actions: tuple[RestrictedAction, ...] = ()
    annotation: dict[str, str] = Field(default_factory=dict)


class Endpoint(_Model):
    """A compute of a branch. `host` is the direct one."""

    id: str
    branch_id: str
    host: str
    type: str
    current_state: str = ""
    disabled: bool = False


class Operation(_Model):
    id: str
    action: str
    status: str
    branch_id: str | None = None
    endpoint_id: str | None = None
    error: str | None = None
    failures_count: int = 0
    updated_at: AwareDatetime


class Database(_Model):
    name: str
    owner_name: str


class Snapshot(_Model):
    id: str
    name: str
    source_branch_id: str | None = None
    created_at: datetime
    expires_at: datetime | None = None


class Project(_Model):
    id: str
    name: str
    pg_version: int
    history_retention_seconds: int
    maintenance_scheduled_for: datetime | None = None

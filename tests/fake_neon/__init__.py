"""A Neon for the tests: its API over real local databases, held to the published OpenAPI description."""

from tests.fake_neon.server import FakeNeon

__all__ = ["FakeNeon"]

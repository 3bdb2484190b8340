"""A real PostgreSQL and a real Kafka for a demo or for tests, with nothing to install."""

from migrator.sandbox.programs import client_program
from migrator.sandbox.session import Sandbox, start_sandbox

__all__ = ["Sandbox", "client_program", "start_sandbox"]

"""The chapters of the demo's story, in order."""

from __future__ import annotations

from migrator.demo.telling import Chapter

CHAPTERS = (
    Chapter(
        1,
        "Servers",
        "A PostgreSQL and a Kafka for this demo alone. Nothing of yours is read or touched.",
    ),
    Chapter(
        2,
        "A log",
        "The CDNOW log: every purchase of 23,570 customers of an online shop, 1997-98.\n"
        "Each becomes an event OrderPlaced in the topic orders, keyed by customer.",
    ),
    Chapter(3, "The schema", "Three revisions; one builds its index beside running writers."),
    Chapter(
        4,
        "The projections",
        "One pass over the topic fills both tables, out of sight; they are checked, then go live.",
    ),
    Chapter(5, "The facts", "Asked of the tables by SQL, beside what the log itself comes to."),
    Chapter(
        6,
        "A change",
        "When do customers come back? No ALTER TABLE can tell, the log can.",
    ),
    Chapter(
        7,
        "The cut-over",
        "The same command builds the new table beside the live one, which a reader hammers.",
    ),
    Chapter(
        8,
        "The way back",
        "The old table was kept, and the database keeps a rollback script for every revision.",
    ),
)

-- Undo 0001: what was requested and not yet published is lost with the tables.
DROP TABLE outbox;
DROP TABLE order_requests;

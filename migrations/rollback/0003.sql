-- Undo 0003: the notes written since are lost.
ALTER TABLE order_requests DROP COLUMN note;

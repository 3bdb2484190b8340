-- migrator: autocommit
DROP INDEX CONCURRENTLY IF EXISTS outbox_unpublished;

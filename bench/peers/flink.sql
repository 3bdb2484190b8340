SET 'execution.runtime-mode' = 'batch';
SET 'table.dml-sync' = 'true';
SET 'pipeline.object-reuse' = 'true';

CREATE TABLE events (
  `type` STRING,
  `data` ROW<order_id STRING, customer_id STRING, currency STRING, total_cents BIGINT,
             placed_at STRING, paid_at STRING, shipped_at STRING>,
  `offset` BIGINT METADATA VIRTUAL
) WITH (
  'connector' = 'kafka',
  'topic' = '{topic}',
  'properties.bootstrap.servers' = '{brokers}',
  'properties.group.id' = 'flink',
  'properties.max.poll.records' = '20000',
  'properties.fetch.max.bytes' = '67108864',
  'properties.max.partition.fetch.bytes' = '8388608',
  'properties.check.crcs' = 'false',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'json'
);

CREATE TABLE folded (
  order_id STRING, customer_id STRING, status STRING, currency STRING, total_cents BIGINT,
  `lines` INT, placed_at STRING, paid_at STRING, shipped_at STRING, version INT,
  PRIMARY KEY (order_id) NOT ENFORCED
) WITH (
  'connector' = 'jdbc',
  'url' = '{url}',
  'table-name' = '{table}',
  'username' = '{user}',
  'password' = '{password}',
  'driver' = 'org.postgresql.Driver',
  'sink.buffer-flush.max-rows' = '10000',
  'sink.buffer-flush.interval' = '10s',
  'sink.parallelism' = '{parallel}'
);

INSERT INTO folded
SELECT
  `data`.order_id,
  MAX(`data`.customer_id),
  -- The last event of an order that sets a status: the offset in front makes the last the greatest.
  SUBSTRING(MAX(LPAD(CAST(CASE WHEN `type` <> 'OrderLineAdded' THEN `offset` END AS STRING), 12, '0')
    || CASE `type` WHEN 'OrderPlaced' THEN 'placed' WHEN 'OrderPaid' THEN 'paid'
       WHEN 'OrderShipped' THEN 'shipped' WHEN 'OrderCancelled' THEN 'cancelled' END) FROM 13),
  MAX(`data`.currency),
  MAX(`data`.total_cents),
  CAST(SUM(CASE WHEN `type` = 'OrderLineAdded' THEN 1 ELSE 0 END) AS INT),
  MAX(`data`.placed_at),
  MAX(`data`.paid_at),
  MAX(`data`.shipped_at),
  CAST(COUNT(*) AS INT)
FROM events
GROUP BY `data`.order_id;

-- The ledger's entry, chained to the last as docs/ledger.md says: sha256 of the last entry's hash, a
-- line feed, and what this entry says as JSON.
WITH new AS MATERIALIZED (
    SELECT gen_random_uuid() AS run, current_setting('migrator.reason') AS reason,
           round(extract(epoch FROM clock_timestamp()
                                    - current_setting('migrator.started')::timestamptz) * 1000)::bigint
               AS duration_ms,
           coalesce((SELECT entry_hash FROM migrator.ledger ORDER BY entry DESC LIMIT 1), '')
               AS previous_hash
),
said AS (
    SELECT new.*, (
               SELECT string_agg(CASE
                          WHEN c IN ('"', '\') THEN '\' || c
                          WHEN ascii(c) BETWEEN 32 AND 126 THEN c
                          WHEN c = chr(8) THEN '\b' WHEN c = chr(9) THEN '\t'
                          WHEN c = chr(10) THEN '\n' WHEN c = chr(12) THEN '\f'
                          WHEN c = chr(13) THEN '\r'
                          WHEN ascii(c) < 65536 THEN '\u' || lpad(to_hex(ascii(c)), 4, '0')
                          ELSE '\u' || to_hex(55296 + ((ascii(c) - 65536) >> 10))
                            || '\u' || to_hex(56320 + ((ascii(c) - 65536) & 1023))
                      END, '' ORDER BY n)
                 FROM regexp_split_to_table(new.reason, '') WITH ORDINALITY AS letters (c, n)
           ) AS reason_in_json
      FROM new
)
INSERT INTO migrator.ledger ({{columns}}, run, reason, duration_ms, client, previous_hash, entry_hash)
SELECT {{values}}, run, reason, duration_ms,
       session_user || '@' || coalesce(host(inet_client_addr()), 'local') || ' (psql)',
       previous_hash,
       encode(sha256(convert_to(previous_hash || chr(10) || {{json}}, 'UTF8')), 'hex')
  FROM said;
COMMIT;

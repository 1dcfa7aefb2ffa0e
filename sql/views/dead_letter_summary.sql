-- dead_letter_summary: what was refused, why, from whom and since when.
-- Grain: one row per reason, source, machine and channel.
-- Columns: reason · source · machine_id · channel (null = a whole message) · letters ·
--   first_ingested_at · last_ingested_at (UTC) · last_detail
CREATE OR REPLACE VIEW dead_letter_summary AS
SELECT
    reason,
    _topic AS source,
    machine_id,
    channel,
    count(*) AS letters,
    min(_ingested_at) AS first_ingested_at,
    max(_ingested_at) AS last_ingested_at,
    arg_max(detail, _ingested_at) AS last_detail
FROM bronze.dead_letters
GROUP BY reason, _topic, machine_id, channel;

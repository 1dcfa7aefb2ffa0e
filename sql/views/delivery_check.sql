-- delivery_check: proof that every row was written once: duplicates must be 0 everywhere.
-- Grain: one row per bronze table and source (`_topic`: topic and broker, or import/<name>).
-- Columns: table_name · source · source_rows · distinct_rows · duplicates · partitions ·
--   first_ingested_at · last_ingested_at (UTC)
CREATE OR REPLACE VIEW delivery_check AS
WITH sources AS (
    SELECT
        'bronze/readings' AS table_name,
        _topic,
        _partition,
        _offset,
        _index,
        _ingested_at
    FROM bronze.readings
    UNION ALL
    SELECT
        'bronze/waveforms' AS table_name,
        _topic,
        _partition,
        _offset,
        _index,
        _ingested_at
    FROM bronze.waveforms
    UNION ALL
    SELECT
        'bronze/events' AS table_name,
        _topic,
        _partition,
        _offset,
        _index,
        _ingested_at
    FROM bronze.events
    UNION ALL
    SELECT
        'bronze/predictions' AS table_name,
        _topic,
        _partition,
        _offset,
        _index,
        _ingested_at
    FROM bronze.predictions
    UNION ALL
    SELECT
        'bronze/feedback' AS table_name,
        _topic,
        _partition,
        _offset,
        _index,
        _ingested_at
    FROM bronze.feedback
    UNION ALL
    SELECT
        'bronze/shadow_scores' AS table_name,
        _topic,
        _partition,
        _offset,
        _index,
        _ingested_at
    FROM bronze.shadow_scores
    UNION ALL
    SELECT
        'bronze/dead_letters' AS table_name,
        _topic,
        _partition,
        _offset,
        _index,
        _ingested_at
    FROM bronze.dead_letters
)

SELECT
    table_name,
    _topic AS source,
    count(*) AS source_rows,
    count(DISTINCT row(_topic, _partition, _offset, _index)) AS distinct_rows,
    count(*) - count(DISTINCT row(_topic, _partition, _offset, _index)) AS duplicates,
    count(DISTINCT _partition) AS partitions,
    min(_ingested_at) AS first_ingested_at,
    max(_ingested_at) AS last_ingested_at
FROM sources
GROUP BY table_name, _topic;

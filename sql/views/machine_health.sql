-- machine_health: everything known about each machine now, in one row.
-- Grain: one row per registered machine.
-- Columns: machine_id · machine_class · site · area · last_reading_at (machine's clock) ·
--   channels_seen · channels_declared · good_share (of the readings of the last day with any) ·
--   features_at · coverage (0 to 1) · asked_at (last prediction) · probability · risk ·
--   failure_mode · served_by · model_version · last_failure_at · last_failure_code ·
--   last_maintenance_at · last_maintenance_code · failures · maintenances · errors
CREATE OR REPLACE VIEW machine_health AS
WITH arrivals AS (
    SELECT
        machine_id,
        channel,
        date,
        ts,
        quality
    FROM bronze.readings
    UNION ALL
    SELECT
        machine_id,
        channel,
        date,
        ts,
        quality
    FROM bronze.waveforms
),

daily AS (
    SELECT
        machine_id,
        date,
        max(ts) AS last_ts,
        count(*) FILTER (WHERE quality = 0) / count(*) AS good_share,
        list(DISTINCT channel) AS channels
    FROM arrivals
    GROUP BY machine_id, date
),

seen AS (
    SELECT
        machine_id,
        max(last_ts) AS last_reading_at,
        arg_max(good_share, date) AS good_share,
        len(list_distinct(flatten(list(channels)))) AS channels_seen
    FROM daily
    GROUP BY machine_id
),

declared AS (
    SELECT
        machine_class,
        count(*) AS channels_declared
    FROM classes.channels
    GROUP BY machine_class
),

last_features AS (
    SELECT
        machine_id,
        ts AS features_at,
        coverage
    FROM gold.features
    QUALIFY row_number() OVER (PARTITION BY machine_id ORDER BY ts DESC) = 1
),

last_predictions AS (
    SELECT
        machine_id,
        asked_at,
        probability,
        risk,
        failure_mode,
        served_by,
        model_version
    FROM bronze.predictions
    QUALIFY row_number() OVER (PARTITION BY machine_id ORDER BY asked_at DESC) = 1
),

happened AS (
    SELECT
        machine_id,
        max(ts) FILTER (WHERE type = 'failure') AS last_failure_at,
        arg_max(code, ts) FILTER (WHERE type = 'failure') AS last_failure_code,
        max(ts) FILTER (WHERE type = 'maintenance') AS last_maintenance_at,
        arg_max(code, ts) FILTER (WHERE type = 'maintenance') AS last_maintenance_code,
        count(*) FILTER (WHERE type = 'failure') AS failures,
        count(*) FILTER (WHERE type = 'maintenance') AS maintenances,
        count(*) FILTER (WHERE type = 'error') AS errors
    FROM bronze.events
    GROUP BY machine_id
)

SELECT
    fleet.machine_id,
    fleet.machine_class,
    fleet.site,
    fleet.area,
    seen.last_reading_at,
    coalesce(seen.channels_seen, 0) AS channels_seen,
    declared.channels_declared,
    seen.good_share,
    last_features.features_at,
    last_features.coverage,
    last_predictions.asked_at,
    last_predictions.probability,
    last_predictions.risk,
    last_predictions.failure_mode,
    last_predictions.served_by,
    last_predictions.model_version,
    happened.last_failure_at,
    happened.last_failure_code,
    happened.last_maintenance_at,
    happened.last_maintenance_code,
    coalesce(happened.failures, 0) AS failures,
    coalesce(happened.maintenances, 0) AS maintenances,
    coalesce(happened.errors, 0) AS errors
FROM fleet
LEFT JOIN seen ON fleet.machine_id = seen.machine_id
LEFT JOIN declared ON fleet.machine_class = declared.machine_class
LEFT JOIN last_features ON fleet.machine_id = last_features.machine_id
LEFT JOIN last_predictions ON fleet.machine_id = last_predictions.machine_id
LEFT JOIN happened ON fleet.machine_id = happened.machine_id;

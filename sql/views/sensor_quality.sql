-- sensor_quality: how complete and how good each channel's readings are, day by day.
-- Grain: one row per machine, channel and UTC day of the reading's own time.
-- Columns: machine_id · machine_class · channel · unit · date · readings (scalars and captures) ·
--   good · uncertain · bad · good_share (0 to 1) · expected (readings a full day has) ·
--   received_share (0 to 1, of the expected) · longest_gap_s (seconds between two readings) ·
--   first_ts · last_ts (UTC) · lowest · highest (good scalar values)
CREATE OR REPLACE VIEW sensor_quality AS
WITH arrivals AS (
    SELECT
        machine_id,
        channel,
        date,
        ts,
        quality,
        value
    FROM bronze.readings
    UNION ALL
    SELECT
        machine_id,
        channel,
        date,
        ts,
        quality,
        NULL AS value
    FROM bronze.waveforms
),

spaced AS (
    SELECT
        *,
        epoch(ts - lag(ts) OVER (PARTITION BY machine_id, channel, date ORDER BY ts)) AS gap_s
    FROM arrivals
),

daily AS (
    SELECT
        machine_id,
        channel,
        date,
        count(*) AS readings,
        count(*) FILTER (WHERE quality = 0) AS good,
        count(*) FILTER (WHERE quality = 1) AS uncertain,
        count(*) FILTER (WHERE quality = 2) AS bad,
        count(DISTINCT ts) AS times,
        max(gap_s) AS longest_gap_s,
        min(ts) AS first_ts,
        max(ts) AS last_ts,
        min(value) FILTER (WHERE quality = 0) AS lowest,
        max(value) FILTER (WHERE quality = 0) AS highest
    FROM spaced
    GROUP BY machine_id, channel, date
)

SELECT
    daily.machine_id,
    fleet.machine_class,
    daily.channel,
    channels.unit,
    daily.date,
    daily.readings,
    daily.good,
    daily.uncertain,
    daily.bad,
    daily.good / daily.readings AS good_share,
    86400e6 / channels.period_us AS expected,
    least(1.0, daily.times * channels.period_us / 86400e6) AS received_share,
    daily.longest_gap_s,
    daily.first_ts,
    daily.last_ts,
    daily.lowest,
    daily.highest
FROM daily
LEFT JOIN fleet ON daily.machine_id = fleet.machine_id
LEFT JOIN classes.channels AS channels
    ON fleet.machine_class = channels.machine_class AND daily.channel = channels.channel;

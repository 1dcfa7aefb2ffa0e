-- alarm_history: every occurrence of an alarm, from raised to returned, with who saw it and when.
-- Grain: one row per alarm and occurrence; a record that Kafka delivered twice counts once.
-- Columns: alarm_id · occurrence · kind (alarm | advisory) · definition_id · machine_id (empty: the
--   product's own parts) · machine_class · site · area · priority · cause_group · is_first_out ·
--   raised_at · returned_at · acknowledged_at (UTC; null = not yet) · acknowledged_by (subject) ·
--   seconds_to_acknowledge · seconds_active (null while active) · value · setpoint ·
--   prediction_id · was_hidden (shelved, suppressed or out of service when raised) · state (now, of
--   the last occurrence; else the one after its last transition) · outcome (last one reported)
CREATE OR REPLACE VIEW alarm_history AS
WITH journal AS (
    SELECT
        *,
        CASE WHEN transition = 'outcome_reported' THEN split_part(comment, ' ', 1) END AS reported
    FROM ops.alarm_journal
    WHERE occurrence > 0
    QUALIFY row_number() OVER (PARTITION BY journal_id ORDER BY _ingested_at, _offset) = 1
),

occurrences AS (
    SELECT
        alarm_id,
        occurrence,
        arg_max(kind, version) AS kind,
        arg_max(definition_id, version) AS definition_id,
        arg_max(machine_id, version) AS machine_id,
        arg_max(machine_class, version) AS machine_class,
        arg_max(site, version) AS site,
        arg_max(area, version) AS area,
        arg_max(priority, version) AS priority,
        arg_max(cause_group, version) AS cause_group,
        bool_or(is_first_out) AS is_first_out,
        max(raised_at) AS raised_at,
        max(changed_at) FILTER (WHERE transition = 'returned') AS returned_at,
        min(changed_at) FILTER (WHERE transition = 'acknowledged') AS acknowledged_at,
        arg_min(subject, version) FILTER (WHERE transition = 'acknowledged') AS acknowledged_by,
        arg_max(value, version) AS value,
        arg_max(setpoint, version) AS setpoint,
        arg_max(prediction_id, version) AS prediction_id,
        bool_or(transition = 'raised' AND state != 'unacknowledged') AS was_hidden,
        arg_max(state, version) AS state,
        arg_max(reported, version) AS outcome
    FROM journal
    GROUP BY alarm_id, occurrence
)

SELECT
    alarm_id,
    occurrence,
    kind,
    definition_id,
    machine_id,
    machine_class,
    site,
    area,
    priority,
    cause_group,
    is_first_out,
    raised_at,
    returned_at,
    acknowledged_at,
    acknowledged_by,
    epoch(acknowledged_at - raised_at) AS seconds_to_acknowledge,
    epoch(returned_at - raised_at) AS seconds_active,
    value,
    setpoint,
    prediction_id,
    was_hidden,
    state,
    outcome
FROM occurrences
ORDER BY raised_at DESC, alarm_id ASC;

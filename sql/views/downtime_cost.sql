-- downtime_cost: what failures and alerts cost a machine, in the relative units of its class.
-- Grain: one row per machine and month (of the machine's clock) with a failure or a decided alert.
-- Columns: machine_id · machine_class · month · failures · warned_failures (an alert stood within
--   the horizon before) · missed_failures · prevented_failures (feedback says so) · wrong_alerts ·
--   cost (missed failures, planned stops for warned and prevented ones, false alarms) ·
--   cost_without_alerts (each of them an unplanned failure) · saved (the difference; negative =
--   the alerts cost more than they saved)
CREATE OR REPLACE VIEW downtime_cost AS
WITH failures AS (
    SELECT DISTINCT
        events.machine_id,
        events.ts AS failed_at
    FROM bronze.events AS events
    WHERE events.type = 'failure'
),

warned AS (
    SELECT
        failures.machine_id,
        failures.failed_at,
        bool_or(alerts.alert IS NOT NULL) AS is_warned
    FROM failures
    INNER JOIN fleet ON failures.machine_id = fleet.machine_id
    INNER JOIN classes.machine_classes AS classes ON fleet.machine_class = classes.machine_class
    LEFT JOIN alerts
        ON
            failures.machine_id = alerts.machine_id
            AND failures.failed_at > alerts.alerted_at
            AND failures.failed_at <= alerts.last_answer_at + to_microseconds(classes.horizon_us)
    GROUP BY failures.machine_id, failures.failed_at
),

counted AS (
    SELECT
        machine_id,
        date_trunc('month', failed_at) AS month,
        1 AS failures,
        if(is_warned, 1, 0) AS warned_failures,
        0 AS prevented_failures,
        0 AS wrong_alerts
    FROM warned
    UNION ALL
    SELECT
        machine_id,
        date_trunc('month', alerted_at) AS month,
        0 AS failures,
        0 AS warned_failures,
        if(outcome = 'prevented', 1, 0) AS prevented_failures,
        if(verdict = 'wrong', 1, 0) AS wrong_alerts
    FROM alerts
    WHERE outcome = 'prevented' OR verdict = 'wrong'
),

summed AS (
    SELECT
        machine_id,
        month,
        sum(failures) AS failures,
        sum(warned_failures) AS warned_failures,
        sum(failures) - sum(warned_failures) AS missed_failures,
        sum(prevented_failures) AS prevented_failures,
        sum(wrong_alerts) AS wrong_alerts
    FROM counted
    GROUP BY machine_id, month
),

priced AS (
    SELECT
        summed.*,
        fleet.machine_class,
        summed.missed_failures * classes.missed_failure_cost
        + (summed.warned_failures + summed.prevented_failures) * classes.planned_stop_cost
        + summed.wrong_alerts * classes.false_alarm_cost AS cost,
        (summed.failures + summed.prevented_failures)
        * classes.missed_failure_cost AS cost_without_alerts
    FROM summed
    INNER JOIN fleet ON summed.machine_id = fleet.machine_id
    INNER JOIN classes.machine_classes AS classes ON fleet.machine_class = classes.machine_class
)

SELECT
    machine_id,
    machine_class,
    month,
    failures,
    warned_failures,
    missed_failures,
    prevented_failures,
    wrong_alerts,
    cost,
    cost_without_alerts,
    cost_without_alerts - cost AS saved
FROM priced;

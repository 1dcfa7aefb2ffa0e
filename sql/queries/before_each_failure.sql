-- What did every feature look like in the 48 hours before each failure, against its usual level?
WITH usual AS (
    SELECT
        machine_id,
        feature,
        median(value) AS usual_value,
        mad(value) AS usual_spread
    FROM feature_history
    GROUP BY machine_id, feature
),

failures AS (
    SELECT
        machine_id,
        ts AS failed_at,
        string_agg(code, ' + ' ORDER BY code) AS failed
    FROM bronze.events
    WHERE type = 'failure'
    GROUP BY machine_id, ts
)

SELECT
    failures.machine_id,
    failures.failed_at,
    failures.failed,
    history.feature,
    history.unit,
    round(max_by(history.value, history.ts), 4) AS last_value,
    round(avg(history.value), 4) AS mean_value,
    round(any_value(usual.usual_value), 4) AS usual_value,
    round(
        (avg(history.value) - any_value(usual.usual_value))
        / nullif(any_value(usual.usual_spread), 0), 2
    ) AS spreads_away
FROM failures
INNER JOIN feature_history AS history
    ON
        failures.machine_id = history.machine_id
        AND failures.failed_at > history.ts
        AND failures.failed_at - INTERVAL 48 HOUR <= history.ts
INNER JOIN usual
    ON history.machine_id = usual.machine_id AND history.feature = usual.feature
GROUP BY
    failures.machine_id, failures.failed_at, failures.failed, history.feature, history.unit
ORDER BY failures.failed_at, failures.machine_id, abs(spreads_away) DESC NULLS LAST;

-- alerts: high risk as a person sees it: answers of one episode are one alert, with what followed.
-- Grain: one row per machine and episode: answers no further apart than the class's horizon.
-- Columns: machine_id · machine_class · alert (1, 2, … per machine) · alerted_at (machine's clock,
--   first answer) · last_answer_at · answers · prediction_id (of the first answer) · probability
--   (highest) · failure_mode · served_by · model_version · model_digest (of the first answer) ·
--   failed_at · failure_code (first failure within the horizon) · lead_hours (alert to failure) ·
--   outcome (last feedback) · verdict: right (failed within the horizon, or feedback says confirmed
--   or prevented) | wrong (feedback says so, or the horizon passed quietly) | undecided
--   (maintenance or feedback hides what would have been) | open (the horizon is not over)
CREATE OR REPLACE VIEW alerts AS
WITH answers AS (
    SELECT
        predictions.*,
        fleet.machine_class,
        to_microseconds(classes.horizon_us) AS horizon,
        coalesce(predictions.features_at, predictions.asked_at) AS answered_at
    FROM bronze.predictions AS predictions
    INNER JOIN fleet ON predictions.machine_id = fleet.machine_id
    INNER JOIN classes.machine_classes AS classes ON fleet.machine_class = classes.machine_class
    QUALIFY
        row_number() OVER (
            PARTITION BY predictions.prediction_id
            ORDER BY predictions._ingested_at, predictions._offset
        ) = 1
),

observed AS (
    SELECT
        machine_id,
        max(answered_at) AS until
    FROM answers
    GROUP BY machine_id
),

raised AS (
    SELECT
        *,
        coalesce(
            answered_at - lag(answered_at) OVER (PARTITION BY machine_id ORDER BY answered_at)
            > horizon,
            TRUE
        ) AS is_new
    FROM answers
    WHERE risk = 'high'
),

numbered AS (
    SELECT
        *,
        count(*) FILTER (WHERE is_new) OVER (
            PARTITION BY machine_id ORDER BY answered_at, chain_seq ROWS UNBOUNDED PRECEDING
        ) AS alert
    FROM raised
),

said AS (
    SELECT
        numbered.machine_id,
        numbered.alert,
        arg_max(feedback.outcome, feedback._ingested_at) AS outcome
    FROM numbered
    INNER JOIN bronze.feedback AS feedback ON numbered.prediction_id = feedback.prediction_id
    GROUP BY numbered.machine_id, numbered.alert
),

episodes AS (
    SELECT
        machine_id,
        machine_class,
        alert,
        horizon,
        min(answered_at) AS alerted_at,
        max(answered_at) AS last_answer_at,
        count(*) AS answers,
        arg_min(prediction_id, answered_at) AS prediction_id,
        max(probability) AS probability,
        arg_min(failure_mode, answered_at) AS failure_mode,
        arg_min(served_by, answered_at) AS served_by,
        arg_min(model_version, answered_at) AS model_version,
        arg_min(model_digest, answered_at) AS model_digest
    FROM numbered
    GROUP BY machine_id, machine_class, alert, horizon
),

followed AS (
    SELECT
        episodes.machine_id,
        episodes.alert,
        min(events.ts) FILTER (WHERE events.type = 'failure') AS failed_at,
        arg_min(events.code, events.ts) FILTER (WHERE events.type = 'failure') AS failure_code,
        count(*) FILTER (WHERE events.type = 'maintenance') AS maintenances
    FROM episodes
    INNER JOIN bronze.events AS events
        ON
            episodes.machine_id = events.machine_id
            AND episodes.alerted_at < events.ts
            AND episodes.last_answer_at + episodes.horizon >= events.ts
    GROUP BY episodes.machine_id, episodes.alert
)

SELECT
    episodes.machine_id,
    episodes.machine_class,
    episodes.alert,
    episodes.alerted_at,
    episodes.last_answer_at,
    episodes.answers,
    episodes.prediction_id,
    episodes.probability,
    episodes.failure_mode,
    episodes.served_by,
    episodes.model_version,
    episodes.model_digest,
    followed.failed_at,
    followed.failure_code,
    epoch(followed.failed_at - episodes.alerted_at) / 3600 AS lead_hours,
    said.outcome,
    CASE
        WHEN said.outcome IN ('confirmed', 'prevented') THEN 'right'
        WHEN said.outcome = 'false_alarm' THEN 'wrong'
        WHEN said.outcome IS NOT NULL THEN 'undecided'
        WHEN followed.failed_at IS NOT NULL THEN 'right'
        WHEN followed.maintenances > 0 THEN 'undecided'
        WHEN observed.until > episodes.last_answer_at + episodes.horizon THEN 'wrong'
        ELSE 'open'
    END AS verdict
FROM episodes
INNER JOIN observed ON episodes.machine_id = observed.machine_id
LEFT JOIN followed
    ON episodes.machine_id = followed.machine_id AND episodes.alert = followed.alert
LEFT JOIN said ON episodes.machine_id = said.machine_id AND episodes.alert = said.alert;

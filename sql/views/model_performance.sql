-- model_performance: what each model said while it answered, against what then happened.
-- Grain: one row per machine class and signed bundle that answered.
-- Columns: machine_class · model_version · model_digest · answers · machines · first_asked_at ·
--   last_asked_at (UTC) · settled_answers (the horizon is over, and no maintenance hid its end) ·
--   failure_share (of the settled ones, that failed within the horizon) · mean_probability (of the
--   settled ones; the nearer to failure_share, the better calibrated) · brier (mean squared error,
--   0 = perfect) · brier_skill (1 - brier over that of always saying failure_share; null without
--   failures) · high_answers (settled, of high risk) · precision_high · recall_high · promoted_at
CREATE OR REPLACE VIEW model_performance AS
WITH answers AS (
    SELECT
        predictions.prediction_id,
        predictions.machine_id,
        predictions.asked_at,
        predictions.probability,
        predictions.risk,
        predictions.model_version,
        predictions.model_digest,
        predictions.features_at,
        fleet.machine_class,
        predictions.features_at + to_microseconds(classes.horizon_us) AS until
    FROM bronze.predictions AS predictions
    INNER JOIN fleet ON predictions.machine_id = fleet.machine_id
    INNER JOIN classes.machine_classes AS classes ON fleet.machine_class = classes.machine_class
    WHERE
        predictions.served_by = 'production'
        AND predictions.probability IS NOT NULL
        AND predictions.features_at IS NOT NULL
    QUALIFY
        row_number() OVER (
            PARTITION BY predictions.prediction_id
            ORDER BY predictions._ingested_at, predictions._offset
        ) = 1
),

observed AS (
    SELECT
        machine_id,
        max(features_at) AS last_at
    FROM answers
    GROUP BY machine_id
),

followed AS (
    SELECT
        answers.prediction_id,
        count(*) FILTER (WHERE events.type = 'failure') > 0 AS has_failed,
        count(*) FILTER (WHERE events.type = 'maintenance') > 0 AS was_maintained
    FROM answers
    INNER JOIN bronze.events AS events
        ON
            answers.machine_id = events.machine_id
            AND answers.features_at < events.ts
            AND answers.until >= events.ts
    GROUP BY answers.prediction_id
),

settled AS (
    SELECT
        answers.*,
        CASE
            WHEN followed.has_failed THEN 1.0
            WHEN followed.was_maintained THEN NULL
            WHEN observed.last_at >= answers.until THEN 0.0
        END AS outcome
    FROM answers
    INNER JOIN observed ON answers.machine_id = observed.machine_id
    LEFT JOIN followed ON answers.prediction_id = followed.prediction_id
),

promotions AS (
    SELECT
        machine_class,
        model_version,
        max(decided_at) AS promoted_at
    FROM ops.model_decisions
    WHERE decision = 'promoted'
    GROUP BY machine_class, model_version
),

measured AS (
    SELECT
        machine_class,
        model_version,
        model_digest,
        count(*) AS answers,
        count(DISTINCT machine_id) AS machines,
        min(asked_at) AS first_asked_at,
        max(asked_at) AS last_asked_at,
        count(outcome) AS settled_answers,
        avg(outcome) AS failure_share,
        avg(probability) FILTER (WHERE outcome IS NOT NULL) AS mean_probability,
        avg((probability - outcome) ** 2) AS brier,
        count(outcome) FILTER (WHERE risk = 'high') AS high_answers,
        avg(outcome) FILTER (WHERE risk = 'high') AS precision_high,
        sum(outcome) FILTER (WHERE risk = 'high') / nullif(sum(outcome), 0) AS recall_high
    FROM settled
    GROUP BY machine_class, model_version, model_digest
)

SELECT
    measured.machine_class,
    measured.model_version,
    measured.model_digest,
    measured.answers,
    measured.machines,
    measured.first_asked_at,
    measured.last_asked_at,
    measured.settled_answers,
    measured.failure_share,
    measured.mean_probability,
    measured.brier,
    1 - measured.brier
    / nullif(measured.failure_share * (1 - measured.failure_share), 0) AS brier_skill,
    measured.high_answers,
    measured.precision_high,
    measured.recall_high,
    promotions.promoted_at
FROM measured
LEFT JOIN promotions
    ON
        measured.machine_class = promotions.machine_class
        AND measured.model_version = promotions.model_version;

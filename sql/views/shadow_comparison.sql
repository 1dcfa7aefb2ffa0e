-- shadow_comparison: an answer beside what the shadow model said of the same vector.
-- Grain: one row per prediction and shadow model; a record that was sent twice counts once.
-- Columns: prediction_id · machine_id · machine_class · asked_at · scored_at (UTC) ·
--   served_by (rung that answered) · model_version · model_digest · probability · risk (of the
--   answer) · shadow_version · shadow_digest · shadow_probability · difference (shadow minus
--   answer; null when no model answered) · outcome (last feedback about the prediction)
CREATE OR REPLACE VIEW shadow_comparison AS
WITH answers AS (
    SELECT *
    FROM bronze.predictions
    QUALIFY row_number() OVER (PARTITION BY prediction_id ORDER BY _ingested_at, _offset) = 1
),

shadow_scores AS (
    SELECT *
    FROM bronze.shadow_scores
    QUALIFY
        row_number() OVER (PARTITION BY prediction_id, digest ORDER BY _ingested_at, _offset) = 1
),

last_feedback AS (
    SELECT
        prediction_id,
        outcome
    FROM bronze.feedback
    WHERE prediction_id != ''
    QUALIFY row_number() OVER (PARTITION BY prediction_id ORDER BY _ingested_at DESC) = 1
)

SELECT
    answers.prediction_id,
    answers.machine_id,
    fleet.machine_class,
    answers.asked_at,
    shadow_scores.scored_at,
    answers.served_by,
    answers.model_version,
    answers.model_digest,
    answers.probability,
    answers.risk,
    shadow_scores.model_version AS shadow_version,
    shadow_scores.digest AS shadow_digest,
    shadow_scores.probability AS shadow_probability,
    shadow_scores.probability - answers.probability AS difference,
    last_feedback.outcome
FROM shadow_scores
INNER JOIN answers ON shadow_scores.prediction_id = answers.prediction_id
LEFT JOIN fleet ON answers.machine_id = fleet.machine_id
LEFT JOIN last_feedback ON answers.prediction_id = last_feedback.prediction_id;

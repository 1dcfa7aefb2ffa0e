-- audit_trail: every answer, who asked, what answered on which data, and what became of it.
-- Grain: one row per prediction.
-- Columns: prediction_id · asked_at (UTC) · machine_id · machine_class · subject · served_by ·
--   probability · risk · failure_mode · model_version · model_digest · feature_set · features_at ·
--   vector · source · latency_ms · instance · chain_seq · is_chained (its predecessor's digest is
--   the one it names; false = a row was removed or altered) · outcome · found_failure_mode ·
--   reported_by (last feedback about it)
CREATE OR REPLACE VIEW audit_trail AS
WITH last_feedback AS (
    SELECT
        prediction_id,
        outcome,
        failure_mode,
        subject
    FROM bronze.feedback
    WHERE prediction_id != ''
    QUALIFY row_number() OVER (PARTITION BY prediction_id ORDER BY _ingested_at DESC) = 1
),

chained AS (
    SELECT
        *,
        lag(digest) OVER (PARTITION BY instance ORDER BY chain_seq) AS digest_before,
        lag(chain_seq) OVER (PARTITION BY instance ORDER BY chain_seq) AS chain_seq_before
    FROM bronze.predictions
)

SELECT
    chained.prediction_id,
    chained.asked_at,
    chained.machine_id,
    fleet.machine_class,
    chained.subject,
    chained.served_by,
    chained.probability,
    chained.risk,
    chained.failure_mode,
    chained.model_version,
    chained.model_digest,
    chained.feature_set,
    chained.features_at,
    chained.vector,
    chained.source,
    chained.latency_us / 1000 AS latency_ms,
    chained.instance,
    chained.chain_seq,
    CASE
        WHEN chained.chain_seq_before IS NULL THEN chained.chain_seq = 0
        ELSE
            chained.chain_seq = chained.chain_seq_before + 1
            AND chained.previous_digest = chained.digest_before
    END AS is_chained,
    last_feedback.outcome,
    last_feedback.failure_mode AS found_failure_mode,
    last_feedback.subject AS reported_by
FROM chained
LEFT JOIN fleet ON chained.machine_id = fleet.machine_id
LEFT JOIN last_feedback ON chained.prediction_id = last_feedback.prediction_id;

-- What did the system answer, for whom, with which model, in the last 24 hours of answers?
SELECT
    asked_at,
    machine_id,
    risk,
    round(probability, 4) AS probability,
    failure_mode,
    served_by,
    model_version,
    left(model_digest, 12) AS model_digest,
    features_at,
    subject,
    is_chained,
    outcome
FROM audit_trail
QUALIFY asked_at > max(asked_at) OVER () - INTERVAL 24 HOUR
ORDER BY asked_at DESC, machine_id ASC
LIMIT 100;

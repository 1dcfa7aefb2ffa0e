-- risk_ranking: machines by their last answered prediction, riskiest first, with what to do.
-- Grain: one row per machine that was ever asked about.
-- Columns: position (1 = riskiest) · machine_id · machine_class · site · area · risk ·
--   probability (0 to 1; null = abstained) · failure_mode · failure_mode_title · action ·
--   procedure · served_by (rung) · model_version · asked_at (UTC) · features_at (machine's clock)
CREATE OR REPLACE VIEW risk_ranking AS
WITH last_predictions AS (
    SELECT *
    FROM bronze.predictions
    QUALIFY row_number() OVER (PARTITION BY machine_id ORDER BY asked_at DESC, chain_seq DESC) = 1
)

SELECT
    row_number() OVER (
        ORDER BY
            CASE last_predictions.risk
                WHEN 'high' THEN 0 WHEN 'elevated' THEN 1 WHEN 'unknown' THEN 2 ELSE 3
            END ASC,
            last_predictions.probability DESC NULLS LAST,
            last_predictions.machine_id ASC
    ) AS position,
    last_predictions.machine_id,
    fleet.machine_class,
    fleet.site,
    fleet.area,
    last_predictions.risk,
    last_predictions.probability,
    last_predictions.failure_mode,
    modes.title AS failure_mode_title,
    modes.action,
    modes.procedure,
    last_predictions.served_by,
    last_predictions.model_version,
    last_predictions.asked_at,
    last_predictions.features_at
FROM last_predictions
LEFT JOIN fleet ON last_predictions.machine_id = fleet.machine_id
LEFT JOIN classes.failure_modes AS modes
    ON
        fleet.machine_class = modes.machine_class
        AND last_predictions.failure_mode = modes.failure_mode
ORDER BY position;

-- feature_history: every feature by name and unit, over time.
-- Grain: one row per machine, step and feature.
-- Columns: machine_id · machine_class · feature_set · ts (machine's clock) · feature · unit ·
--   value (null = missing) · coverage (0 to 1, of the whole vector) · date
CREATE OR REPLACE VIEW feature_history AS
SELECT
    vectors.machine_id,
    vectors.machine_class,
    vectors.feature_set,
    vectors.ts,
    features.feature,
    features.unit,
    CASE
        WHEN NOT isnan(vectors.vector[features.position])
            THEN vectors.vector[features.position]
    END AS value,
    vectors.coverage,
    vectors.date
FROM gold.features AS vectors
INNER JOIN classes.features AS features ON vectors.feature_set = features.feature_set;

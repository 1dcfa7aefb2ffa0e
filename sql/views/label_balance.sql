-- label_balance: how many rows can be learnt from, and why the others cannot.
-- Grain: one row per machine class, horizon, label and provenance.
-- Columns: machine_class · horizon_us · label (1 fails, 0 does not, null censored) · provenance ·
--   label_rows · machines · share (of the class's rows at this horizon) · first_ts · last_ts
CREATE OR REPLACE VIEW label_balance AS
SELECT
    machine_class,
    horizon_us,
    label,
    provenance,
    count(*) AS label_rows,
    count(DISTINCT machine_id) AS machines,
    count(*) / sum(count(*)) OVER (PARTITION BY machine_class, horizon_us) AS share,
    min(ts) AS first_ts,
    max(ts) AS last_ts
FROM gold.labels
GROUP BY machine_class, horizon_us, label, provenance;

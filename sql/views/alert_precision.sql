-- alert_precision: of the alerts whose end is known, how many were right, and how early.
-- Grain: one row per machine class, rung and model version.
-- Columns: machine_class · served_by (rung) · model_version · alerts · right_alerts ·
--   wrong_alerts · undecided_alerts · open_alerts (see the view alerts) · precision (right of
--   right and wrong; null = none is decided) · machines (that had an alert) ·
--   median_lead_hours (of alerts that failed)
CREATE OR REPLACE VIEW alert_precision AS
SELECT
    machine_class,
    served_by,
    model_version,
    count(*) AS alerts,
    count(*) FILTER (WHERE verdict = 'right') AS right_alerts,
    count(*) FILTER (WHERE verdict = 'wrong') AS wrong_alerts,
    count(*) FILTER (WHERE verdict = 'undecided') AS undecided_alerts,
    count(*) FILTER (WHERE verdict = 'open') AS open_alerts,
    count(*) FILTER (WHERE verdict = 'right')
    / nullif(count(*) FILTER (WHERE verdict IN ('right', 'wrong')), 0) AS precision,
    count(DISTINCT machine_id) AS machines,
    median(lead_hours) AS median_lead_hours
FROM alerts
GROUP BY machine_class, served_by, model_version;

-- Which ten machines need attention first, and what should be done about each?
SELECT
    position,
    machine_id,
    site,
    risk,
    round(probability, 3) AS probability,
    failure_mode_title,
    action,
    served_by,
    asked_at
FROM risk_ranking
ORDER BY position
LIMIT 10;

-- Which sensors were worst over their last seven days: bad values, missing readings, long gaps?
WITH last_week AS (
    SELECT *
    FROM sensor_quality
    QUALIFY date > max(date) OVER (PARTITION BY machine_id, channel) - INTERVAL 7 DAY
)

SELECT
    machine_id,
    channel,
    sum(readings) AS readings,
    round(sum(good) / sum(readings), 4) AS good_share,
    round(avg(received_share), 4) AS received_share,
    max(longest_gap_s) AS longest_gap_s
FROM last_week
GROUP BY machine_id, channel
ORDER BY good_share, received_share, machine_id, channel
LIMIT 20;

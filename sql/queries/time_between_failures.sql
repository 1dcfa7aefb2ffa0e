-- How long do machines run between failures and between maintenance, per class and code?
WITH spans AS (
    SELECT
        fleet.machine_class,
        events.type,
        events.code,
        epoch(
            events.ts - lag(events.ts) OVER (
                PARTITION BY events.machine_id, events.type, events.code ORDER BY events.ts
            )
        ) / 3600 AS hours
    FROM bronze.events AS events
    INNER JOIN fleet ON events.machine_id = fleet.machine_id
    WHERE events.type IN ('failure', 'maintenance')
)

SELECT
    machine_class,
    type,
    code,
    count(*) AS happened,
    round(median(hours), 1) AS median_hours_between,
    round(min(hours), 1) AS shortest_hours,
    round(max(hours), 1) AS longest_hours
FROM spans
GROUP BY machine_class, type, code
ORDER BY machine_class, type, code;

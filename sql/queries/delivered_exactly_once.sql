-- Was every message written exactly once? No rows = yes.
SELECT
    table_name,
    source,
    source_rows,
    distinct_rows,
    duplicates
FROM delivery_check
WHERE duplicates != 0
ORDER BY duplicates DESC;

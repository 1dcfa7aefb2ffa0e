-- fleet: the machines as last registered.
-- Grain: one row per machine.
-- Columns: machine_id · machine_class · site · area · attributes (JSON) · registered_at (UTC)
CREATE OR REPLACE VIEW fleet AS
SELECT
    machine_id,
    machine_class,
    site,
    area,
    attributes,
    registered_at
FROM bronze.machines
QUALIFY row_number() OVER (PARTITION BY machine_id ORDER BY registered_at DESC) = 1;

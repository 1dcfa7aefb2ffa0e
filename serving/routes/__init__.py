"""HTTP in and out, one module per resource. Decisions are made elsewhere."""

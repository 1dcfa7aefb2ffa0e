"""What the assets do, without dagster: lake in, lake and bundles out. One module per layer."""

"""What operators see: logs without secrets and metrics with bounded labels. Decides nothing, knows no business type."""

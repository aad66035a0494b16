"""Terminals: shells in sandboxes that people type into, watch together, record and come back to."""

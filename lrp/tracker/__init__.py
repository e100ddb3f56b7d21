"""Trackers write a job down elsewhere, beside its own tables, which never depend on them."""

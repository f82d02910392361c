"""attnspec.report."""

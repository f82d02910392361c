"""attnspec.adapters."""

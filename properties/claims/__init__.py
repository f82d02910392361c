"""attnspec.properties.claims."""

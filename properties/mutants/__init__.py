"""attnspec.properties.mutants."""

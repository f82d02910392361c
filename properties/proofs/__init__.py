"""attnspec.properties.proofs."""

if __name__ != "attnspec.properties.proofs":  # imported from the repository root it would be a second copy of every module
    raise ImportError(f"{__name__} is not a package of its own: import attnspec.properties.proofs")

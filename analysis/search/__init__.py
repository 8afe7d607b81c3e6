"""What a search found: its points, what they say of the space, and how sure that is."""

from analysis.search.report import SearchPart, write_search

__all__ = ["SearchPart", "write_search"]

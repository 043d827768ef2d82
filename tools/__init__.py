"""Scripts that keep the generated pages and the quality gates honest."""

"""Raw texts into a corpus: read, cleaned, deduplicated, decontaminated, indexed."""

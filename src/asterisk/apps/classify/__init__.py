"""Classification over frozen embeddings: a trained head, or label names alone."""

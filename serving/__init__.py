"""Uses a trained model outside of evaluation: lists of items for any history, and an index of item vectors."""

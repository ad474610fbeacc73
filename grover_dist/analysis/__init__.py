"""What a trained model learned, each number beside a null: the same number for a model or an arrangement that knows nothing."""

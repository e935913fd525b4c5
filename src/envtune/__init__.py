"""envtune: environment variables in, a fine-tuned model out."""

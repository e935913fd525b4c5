"""What is a model, an adapter or a checkpoint on disk, and is it whole?"""

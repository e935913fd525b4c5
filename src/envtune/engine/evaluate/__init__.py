"""What does a model answer, and how well?"""

"""Which of the rows are taken, into which side of the split, and how often?"""

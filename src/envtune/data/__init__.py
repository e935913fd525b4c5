"""What do the rows say, which of them are taken, and how does each become text?"""

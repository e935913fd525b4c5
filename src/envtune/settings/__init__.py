"""What does the user say, in which words, and of which type?"""

"""What is wrong, all at once and before anything starts?"""

"""What does a person type, and what is read?"""

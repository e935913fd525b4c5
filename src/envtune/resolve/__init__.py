"""What will be done, and why?"""

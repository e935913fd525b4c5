"""How does what was trained become what can be served?"""

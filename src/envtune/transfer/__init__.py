"""What comes from the Hub and goes to other places?"""

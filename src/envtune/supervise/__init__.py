"""Who is running, and how does it end?"""

"""What runs in a child, where torch is?"""

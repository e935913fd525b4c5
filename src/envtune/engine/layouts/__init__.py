"""How was a conversation laid out in training, and how does a server lay it out so?"""
